#!/usr/bin/env bash
# Measures the face-model fit: held-out landmark errors on clips, errors against known truth, stability, hidden points,
# speed and memory. Writes DIR/fit.md and DIR/fit.json. Without --clips the demo's clips are used.
# Usage: bash scripts/evaluate_fit.sh [--clips FILE_OR_FOLDER ...] [--out DIR] [--landmarks FOLDER] [--unsmoothed]
#                                     [--only clips|speakers|stability|occlusion|speed ...] [--device cpu|cuda]
#        PYTHON=... picks the interpreter; all flags: data_gen/runs/evaluate_fit.py --help
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
exec "$python" "$root/data_gen/runs/evaluate_fit.py" "$@"
