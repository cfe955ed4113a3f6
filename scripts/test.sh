#!/usr/bin/env bash
# Sets up, runs the static checks and every test that is not marked slow, in WORKERS (2) processes of one thread each.
# Usage: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh --dev
bash scripts/check.sh
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "not slow" -n "${WORKERS:-2}" --dist loadfile "$@"
