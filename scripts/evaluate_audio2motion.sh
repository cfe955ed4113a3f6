#!/usr/bin/env bash
# Measure audio -> motion on people it never heard: one table, beside loudness, ridge, wrong sound and a second tracking.
#
#   bash scripts/evaluate_audio2motion.sh [--corpus DIR] [--config FILE] [--work_dir DIR] [--clips VIDEOS]
#                                         [--speech SOUNDS] [--out DIR] [--card CHECKPOINT]
#
# The folds of a finished training (data/training/audio2motion) are taken as they are, others are trained first.
# --clips adds noise of 10 dB, --speech languages and sample rates, --card puts the table into a model card.
# The second tracking is there when the corpus was built with: build_av_corpus.py --again
set -euo pipefail

cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
[[ -x $python ]] || python=python3
exec "$python" inference/evaluate_audio2motion.py "$@"
