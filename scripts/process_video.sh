#!/usr/bin/env bash
# Prepares a video for training GeneFace++'s kind of portrait: 25 fps, 512 px, speech, landmarks, fit, head, torso,
# background, dataset. May be stopped and run again at any time; only what is missing or out of date is made.
# Usage: bash scripts/process_video.sh ID [flags of data_gen/runs/process_video.py]
#        ID is data/raw/videos/ID.mp4, or the path of any video (then its name without ending is the ID).
#        PRESET=small|original picks how many frames are stored (default: original, all of them).
#        PYTHON=... picks the interpreter.
set -euo pipefail
id="${1:-}"
case "$id" in "" | -*) sed -n '/^# Usage/,/^set/s/^# *//p' "$0" >&2; exit 2 ;; esac
what=(--video_id "$id")
if [ -f "$id" ]; then what=(--video "$(realpath "$id")"); fi
cd "$(dirname "$0")/.."
case "${PRESET:-original}" in
  small) config=egs/egs_bases/process_video/portrait_small.yaml ;;
  original) config=egs/egs_bases/process_video/base.yaml ;;
  *) echo "PRESET is ${PRESET}; use small or original" >&2; exit 2 ;;
esac
exec "${PYTHON:-.venv/bin/python}" data_gen/runs/process_video.py "${what[@]}" --config "$config" --portrait "${@:2}"
