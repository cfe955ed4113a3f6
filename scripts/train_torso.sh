#!/usr/bin/env bash
# Trains the torso onto the head that scripts/train_head.sh made; may be stopped and run again at any time. The result
# is checkpoints/ID/lm3d_radnerf_torso_sr, which holds the head too: it is all that scripts/infer.sh needs.
# Usage: bash scripts/train_torso.sh ID [flags of tasks/run.py]
#        A new egs/datasets/ID/lm3d_radnerf_torso_sr.yaml gets the sizes that go with the head's.
set -euo pipefail
id="${1:-}"
case "$id" in "" | -* | .* | *[!A-Za-z0-9._-]*) sed -n '/^# Usage/,/^set/s/^# *//p' "$0" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
config="egs/datasets/$id/lm3d_radnerf_torso_sr.yaml"
if [ ! -f "$config" ]; then
  head="egs/datasets/$id/lm3d_radnerf_sr.yaml"
  [ -f "$head" ] || { echo "$head is missing; train the head first: bash scripts/train_head.sh $id" >&2; exit 1; }
  base=portrait_torso
  for size in small fast; do
    if grep -q "^base_config:.*portrait_head_$size" "$head"; then base="portrait_torso_$size"; fi
  done
  printf '# The torso of a portrait, made by scripts/train_torso.sh; edit freely.\nbase_config: egs/egs_bases/radnerf/%s.yaml\nvideo_id: "%s"\nhead_ckpt: "checkpoints/%s/lm3d_radnerf_sr"\n' "$base" "$id" "$id" >"$config"
fi
exec "$python" tasks/run.py --config "$config" --exp_name "$id/lm3d_radnerf_torso_sr" "${@:2}"
