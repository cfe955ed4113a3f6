#!/usr/bin/env bash
# Prepares data/raw/videos/ID.mp4 and trains the person in it; may be stopped and run again at any time.
# Usage: bash scripts/train_identity.sh ID [flags of tasks/run.py]
#        PRESET=cpu|fast|full picks the sizes of a new egs/datasets/ID/lm3d_radnerf.yaml (default: fast with an NVIDIA
#        GPU, else cpu); GPUS=N trains on N of them.
set -euo pipefail
id="${1:-}"
case "$id" in "" | -* | .* | *[!A-Za-z0-9._-]*) sed -n '/^# Usage/,/^set/s/^# *//p' "$0" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
config="egs/datasets/$id/lm3d_radnerf.yaml"
if [ ! -f "$config" ]; then
  preset="${PRESET:-$(command -v nvidia-smi >/dev/null && echo fast || echo cpu)}"
  mkdir -p "$(dirname "$config")"
  printf '# Training of one person, made by scripts/train_identity.sh; edit freely.\nbase_config: egs/egs_bases/radnerf/%s.yaml\nvideo_id: "%s"\n' "$preset" "$id" >"$config"
fi
"$python" data_gen/runs/process_video.py --video_id "$id"
launcher=()
[ "${GPUS:-1}" = 1 ] || launcher=(-m torch.distributed.run --standalone "--nproc_per_node=$GPUS")
"$python" "${launcher[@]}" tasks/run.py --config "$config" --exp_name "$id" "${@:2}"
