#!/usr/bin/env bash
# Listen and look: the default face says a speech, beside its waveform and lip opening, as a small video with the sound.
# Usage: bash scripts/inspect_motion.sh A.wav [--out FILE] [--fps N] [--start S] [--end S] [--a2m_ckpt DIR]
#                                             [--mouth_amp A] [--temperature T] [--seed N] [--silence fade|close|keep]
#                                             [--blink_mode none|period]
#        --out    the video (default: out/inspect_motion/<name of the sound>.mp4)
#        --start  show only from this second on (then without sound); --end only up to this one
#        PYTHON=... picks the interpreter.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '/^# Usage/,/^set/s/^# *//p' "$0" >&2; exit 2; }
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
exec "$python" "$root/inference/inspect_motion.py" "$@"
