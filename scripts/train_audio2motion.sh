#!/usr/bin/env bash
# Build the talking-clip corpus and train audio -> motion from it; both go on where an earlier run stopped.
#
#   bash scripts/train_audio2motion.sh CLIPS_FOLDER OFFSETS_JSON [CORPUS_FOLDER]
#
# CLIPS_FOLDER   videos with sound, searched recursively; only those named in OFFSETS_JSON are used
# OFFSETS_JSON   {"clips": {NAME: {"sound_later_frames_at_25fps": 1, "r_opening": 0.7, "z": 9.0}, ...}}
# CORPUS_FOLDER  landmarks, fits and prepared clips (default data/audio2motion); delete its fits/ after a change of the
#                fit, its landmarks/ after a change of the tracker
set -euo pipefail

if [[ $# -lt 2 ]]; then
  sed -n '2,9p' "$0" >&2
  exit 2
fi
clips=$(realpath "$1")
offsets=$(realpath "$2")
corpus=$(realpath -m "${3:-$(dirname "$0")/../data/audio2motion}")
cd "$(dirname "$0")/.."
python=.venv/bin/python
[[ -x $python ]] || python=python3

"$python" data_gen/runs/build_av_corpus.py --clips "$clips" --offsets "$offsets" --out "$corpus"
"$python" tasks/run.py --config egs/egs_bases/audio2motion/base.yaml --exp_name audio2motion \
  --hparams "clips=$corpus/clips"
