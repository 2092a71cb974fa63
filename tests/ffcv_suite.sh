#!/bin/bash
# FFCV's own tests, run on beton.ffcv, or on stock FFCV with STOCK=1:
#
#   tests/ffcv_suite.sh FOLDER [pytest's arguments, test_rrc.py for one file]
#
# FOLDER is a checkout of FFCV's repository; its tests are copied and changed in two places: CIFAR-10 is random pictures
# (nothing is downloaded), and processes talk by gloo (nccl needs a GPU for each). What needs a GPU is left out without
# one, as are test_webdataset.py (a script; docs/ffcv.md has it) and test_memory_leak.py (it is always skipped). They need
# the package assertpy. SECONDS_PER_TEST=120 is the limit of each.
set -e
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
source=${1:?the folder of a checkout of FFCV}/tests
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$source"/*.py "$work"
sed -i "s/'nccl'/'gloo'/" "$work/test_traversal_orders.py"
cp "$root/tests/support/ffcv_suite.py" "$work/conftest.py"
[ -n "$STOCK" ] || launcher="-m beton.ffcv"
cd "$work"
PYTHONPATH="$root" "$python" $launcher -m pytest -q -p no:cacheprovider -p no:randomly --durations=0 --durations-min=1 \
    --ignore test_webdataset.py --ignore test_memory_leak.py "${@:-.}"
