#!/usr/bin/env bash
# Static checks: style, formatting, types. Usage: bash scripts/check.sh   (after scripts/setup.sh --dev; PYTHON=... overrides)
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pyright --pythonpath "$(command -v "$python")"
