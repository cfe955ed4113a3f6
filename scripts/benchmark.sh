#!/usr/bin/env bash
# Times every stage of the pipeline per frame, and what memory it needs, on the CPU and on CUDA where it is there:
# prints one table and writes out/benchmark.json. Without flags the demo's video, speech and person are used (3 minutes).
# Usage: bash scripts/benchmark.sh [--src_video V] [--drv_aud A] [--head_ckpt C] [--frames N] [--repeats R>=5]
#                                  [--device auto|cpu|cuda] [--out FILE.json]     PYTHON=... picks the interpreter.
#        bash scripts/benchmark.sh --gpu [--only PART ...] [--out FILE.json]       what one NVIDIA GPU does: rendering, training,
#                                                                                  networks, the whole command (under 8 minutes)
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
exec "$python" "$root/inference/benchmark.py" "$@"
