#!/usr/bin/env bash
# Lip-syncs any video to any speech; trains the person in it first when no checkpoint of them exists.
# Usage: bash scripts/infer_arbitrary.sh VIDEO AUDIO OUT [flags of inference/genefacepp_infer_arbitrary.py]
set -euo pipefail
[ $# -ge 3 ] || { sed -n '/^# Usage/,/^set/s/^# *//p' "$0" >&2; exit 2; }
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
exec "$python" "$root/inference/genefacepp_infer_arbitrary.py" --src_video "$1" --drv_aud "$2" --out_name "$3" "${@:4}"
