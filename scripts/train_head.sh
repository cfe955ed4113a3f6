#!/usr/bin/env bash
# Trains the head of a portrait (with super-resolution at the original sizes) on a video that scripts/process_video.sh
# has prepared; may be stopped and run again at any time. The result is checkpoints/ID/lm3d_radnerf_sr.
# Usage: bash scripts/train_head.sh ID [flags of tasks/run.py]
#        PRESET=small|fast|original picks sizes and steps of a new egs/datasets/ID/lm3d_radnerf_sr.yaml: for two CPU cores,
#        the original sizes in minutes on a GPU, or in hours (default: fast with an NVIDIA GPU, else small).
set -euo pipefail
id="${1:-}"
case "$id" in "" | -* | .* | *[!A-Za-z0-9._-]*) sed -n '/^# Usage/,/^set/s/^# *//p' "$0" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
config="egs/datasets/$id/lm3d_radnerf_sr.yaml"
if [ ! -f "$config" ]; then
  preset="${PRESET:-$(command -v nvidia-smi >/dev/null && echo fast || echo small)}"
  case "$preset" in original) base=portrait_head ;; small | fast) base="portrait_head_$preset" ;; *) echo "PRESET is $preset; use small, fast or original" >&2; exit 2 ;; esac
  mkdir -p "$(dirname "$config")"
  printf '# A portrait'"'"'s head, made by scripts/train_head.sh; edit freely.\nbase_config: egs/egs_bases/radnerf/%s.yaml\nvideo_id: "%s"\n' "$base" "$id" >"$config"
fi
exec "$python" tasks/run.py --config "$config" --exp_name "$id/lm3d_radnerf_sr" "${@:2}"
