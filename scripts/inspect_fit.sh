#!/usr/bin/env bash
# Shows how well the face model fits a video: the fitted mesh, landmarks, errors and pose axes drawn over it (overlay.mp4),
# the coefficients over time (coefficients.png) and the figures (fit.json). The video is prepared as far as needed.
# Usage: bash scripts/inspect_fit.sh VIDEO [--out DIR] [--face K] [--start S] [--end S] [--size PX] [--data_root D]
#                                          [--hparams a.b=c]
#        --out        folder of the three files (default: out/inspect_fit/<name of the video>)
#        --face       number of the face, most face area over time first (default: 0)
#        --start      show and count only from this second on (then without sound); --end only up to this one
#        --size       longest side of the video in the overlay, px (default: 1280)
#        --data_root  where prepared videos are cached (default: data/); --hparams changes how they are prepared
#        PYTHON=... picks the interpreter.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '/^# Usage/,/^set/s/^# *//p' "$0" >&2; exit 2; }
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
exec "$python" "$root/inference/inspect_fit.py" "$@"
