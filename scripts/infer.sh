#!/usr/bin/env bash
# A trained person says a speech: the portrait of scripts/train_head.sh and train_torso.sh (checkpoints/ID/...), else the
# person of scripts/train_identity.sh (checkpoints/identities/ID).
# Usage: bash scripts/infer.sh ID AUDIO OUT [flags of inference/genefacepp_infer.py]
set -euo pipefail
[ $# -ge 3 ] || { sed -n '/^# Usage/,/^set/s/^# *//p' "$0" >&2; exit 2; }
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
of="$root/checkpoints"
for person in "$of/$1/lm3d_radnerf_torso_sr" "$of/$1/lm3d_radnerf_sr" "$of/identities/$1"; do
  [ -e "$person" ] && break
done
exec "$python" "$root/inference/genefacepp_infer.py" --head_ckpt "$person" --drv_aud "$2" --out_name "$3" "${@:4}"
