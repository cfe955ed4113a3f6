#!/usr/bin/env bash
# Measures the masks of what stands before faces: synthetic things over painted heads (and, with --clips, over real
# clips) with exact truth, and clips with nothing before the face. Writes DIR/occlusion.md and DIR/occlusion.json.
# Usage: bash scripts/evaluate_occlusion.sh [--clips FOLDER] [--clean CLIP ...] [--set FOLDER] [--out DIR]
#                                           [--sequences NAME ...] [--evidence hands|appearance|nerf ...] [--device cpu|cuda]
#        PYTHON=... picks the interpreter; all flags: data_gen/runs/evaluate_occlusion.py --help
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
exec "$python" "$root/data_gen/runs/evaluate_occlusion.py" "$@"
