#!/usr/bin/env bash
# Build the talking-clip corpus and train audio -> motion from it; both go on where an earlier run stopped.
#
#   bash scripts/train_audio2motion.sh CLIPS_FOLDER OFFSETS_JSON
#
# CLIPS_FOLDER   videos with sound, searched recursively; only those named in OFFSETS_JSON are used
# OFFSETS_JSON   {"clips": {NAME: {"sound_later_frames_at_25fps": 1, "r_opening": 0.7, "z": 9.0}, ...}}
#
# The corpus lies in data/audio2motion: delete fits/ there after a change of the fit (a new face model is noticed), and
# landmarks/ after a change of the tracker. The result is checkpoints/audio2motion with its model card.
set -euo pipefail

if [[ $# -ne 2 ]]; then
  sed -n '2,10p' "$0" >&2
  exit 2
fi
clips=$(realpath "$1")
offsets=$(realpath "$2")
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
[[ -x $python ]] || python=python3

"$python" data_gen/runs/build_av_corpus.py --clips "$clips" --offsets "$offsets" --out data/audio2motion
"$python" tasks/run.py --config egs/egs_bases/audio2motion/base.yaml --exp_name audio2motion
