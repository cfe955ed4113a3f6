#!/usr/bin/env bash
# Fetches models and clips that cannot be shipped: shows the licence, asks, goes on where it broke off, verifies the hash.
# Usage: bash scripts/download_models.sh [NAME ...] [--list] [--check] [--accept_licence]
#        without a NAME it only lists them; --check verifies what is here; --accept_licence does not ask (for scripts)
#        PYTHON=... picks the interpreter.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
exec "$python" "$root/tasks/download_models.py" "$@"
