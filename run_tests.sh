#!/usr/bin/env bash
# Set up, check the style, run every test that needs no GPU. Arguments go to pytest, e.g. --slow.
# With --gpu: those that need one, and no others; status 2 where there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup.sh
if [[ " $* " == *" --gpu "* ]]; then
    exec .venv/bin/python -m pytest -q "$@"  # in one process, which has the GPU for itself
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
exec .venv/bin/python -m pytest -q -n auto --dist loadscope --durations=30 "$@"
