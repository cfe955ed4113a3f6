#!/usr/bin/env bash
# Times the pass that finds what stands before a face, over a prepared video: ms per frame by arrays on one CPU core and,
# with --device cuda, on a GPU, and how far the masks of the two differ. The expected face is not counted.
# Usage: bash scripts/time_occlusion.sh VIDEO [--data_root DIR] [--first N] [--frames N] [--device cpu|cuda] [--repeats N]
#        PYTHON=... picks the interpreter; all flags: data_gen/runs/time_occlusion.py --help
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
exec "$python" "$root/data_gen/runs/time_occlusion.py" "$@"
