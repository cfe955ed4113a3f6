#!/usr/bin/env bash
# Makes .venv with everything the project needs and fetches the small models. Safe to run again: finished work is skipped.
# Usage: bash scripts/setup.sh [--dev]        --dev adds what the tests and checks need. PYTHON=... picks the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=requirements.txt
[ "${1:-}" = "--dev" ] && requirements=requirements-dev.txt
suitable='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
if ! .venv/bin/python -c "$suitable" 2>/dev/null; then
  for python in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    "$python" -c "$suitable" 2>/dev/null && break || python=""
  done
  [ -n "$python" ] || { echo "setup: no Python 3.11, 3.12 or 3.13 with the venv module found; install one (Debian, Ubuntu: apt install python3-venv) or set PYTHON=/path/to/python" >&2; exit 1; }
  "$python" -m venv --clear .venv
fi
stamp=".venv/installed-$requirements-$(cat requirements*.txt | cksum | tr ' ' -)"
if [ ! -f "$stamp" ]; then
  pip=(.venv/bin/python -m pip install --disable-pip-version-check --quiet)
  # Without an NVIDIA GPU the CPU build of torch does and saves gigabytes: from the configured index, else from PyTorch's.
  if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    echo "setup: installing torch (CPU build)"
    "${pip[@]}" torch==2.13.0+cpu 2>/dev/null ||
      "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu 'torch>=2.11,<2.14' || echo "setup: no CPU build found, taking PyPI's"
  fi
  echo "setup: installing $requirements"
  "${pip[@]}" -r "$requirements"
  touch "$stamp"
fi
.venv/bin/python -m modules.commons.model_store
