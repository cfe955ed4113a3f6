#!/usr/bin/env bash
# Sets everything up and lip-syncs the demo video to the demo speech. Further flags go to the main command.
# Usage: bash scripts/demo.sh [flags of inference/genefacepp_infer_arbitrary.py]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
mkdir -p out
.venv/bin/python inference/genefacepp_infer_arbitrary.py --src_video checkpoints/demo/WolfgangLanger_Pexels.mp4 \
  --drv_aud checkpoints/demo/obama_speech.wav --out_name out/demo.mp4 "$@"
echo "The result is in $PWD/out/demo.mp4"
