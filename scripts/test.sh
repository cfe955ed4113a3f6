#!/usr/bin/env bash
# Sets up, runs the static checks and every test that is not marked slow.
# Usage: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh --dev
bash scripts/check.sh
.venv/bin/python -m pytest -m "not slow" "$@"
