#!/usr/bin/env bash
# Build the talking-clip corpus and train audio -> motion from it; both go on where an earlier run stopped.
#
#   bash scripts/train_audio2motion.sh CLIPS_FOLDER [OFFSETS_CSV]
#
# CLIPS_FOLDER   videos with sound, searched recursively; those that egs/datasets/av_corpus/speakers.csv knows are used
# OFFSETS_CSV    by how much each clip's sound is late, and which clips are kept; left out, both are found anew and
#                written to data/audio2motion/offsets.csv (the shipped model's: egs/datasets/av_corpus/offsets.csv)
#
# The corpus lies in data/audio2motion: delete fits/ there after a change of the fit (a new face model is noticed), and
# landmarks/ after a change of the tracker. The results are checkpoints/audio2motion, from freely licensed clips alone, and
# checkpoints/audio2motion_full, from all, each with its model card; measure them with scripts/evaluate_audio2motion.sh.
# Once the clips are tracked, a variant takes about an hour on two CPU cores.
set -euo pipefail

if [[ $# -lt 1 || $# -gt 2 ]]; then
  sed -n '2,13p' "$0" >&2
  exit 2
fi
clips=$(realpath "$1")
offsets=()
[[ $# -eq 2 ]] && offsets=(--offsets "$(realpath "$2")")
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
[[ -x $python ]] || python=python3

"$python" data_gen/runs/build_av_corpus.py --clips "$clips" --out data/audio2motion "${offsets[@]}"
"$python" tasks/run.py --config egs/egs_bases/audio2motion/base.yaml --hparams variant=clean --exp_name audio2motion
"$python" tasks/run.py --config egs/egs_bases/audio2motion/base.yaml --exp_name audio2motion_full
