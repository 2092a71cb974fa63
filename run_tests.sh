#!/usr/bin/env bash
# Set up, check the style, run every test that needs no GPU. Arguments go to pytest, e.g. --slow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest -q -n auto --dist loadscope --durations=30 "$@"
