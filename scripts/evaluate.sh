#!/usr/bin/env bash
# Measures lips, picture, seams, time and motion transfer on a video, beside rows that say what figures are worth: DIR/report.html
# Usage: bash scripts/evaluate.sh --src_video V --out DIR [--head_ckpt C] [--drv_aud A1 A2 ...] [--result R] [further flags]
#        --drv_aud: each speech gets a dubbing of its own, such as english_8s.wav mandarin_news.wav
#        EVALUATE="--keep_trials --hparams draws=200" goes to tasks/evaluate.py; all flags: inference/make_trials.py --help
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
out=""
for ((i = 1; i < $#; i++)); do
  next=$((i + 1))
  if [ "${!i}" = "--out" ]; then out="${!next}"; fi
done
[ -n "$out" ] || { sed -n '/^# Usage/,/^set/s/^# *//p' "$0" | grep -v '^set' >&2; exit 2; }
"$python" "$root/inference/make_trials.py" "$@"
read -r -a more <<<"${EVALUATE:-}"
command="${EVALUATE:+EVALUATE=$(printf '%q' "${EVALUATE:-}") }bash scripts/evaluate.sh$(printf ' %q' "$@")"
exec "$python" "$root/tasks/evaluate.py" --out "$out" --command "$command" ${more[@]+"${more[@]}"}
