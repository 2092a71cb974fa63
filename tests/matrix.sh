#!/usr/bin/env bash
# Runs the library's tests on each Python, with the oldest and with the newest dependencies that pyproject.toml allows.
#
#     tests/matrix.sh [--python PYTHON ...] [TEST ...]     # default: python3.10 ... python3.13, tests/beton
#
# Prints a row of a table for each, and writes docs/matrix.json (OUT names another file). Needs ./setup.sh to have run.
# Each environment is removed after its run; the packages (several GB) stay in uv's cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$PWD/.venv/bin/uv out=${OUT:-docs/matrix.json}
pythons=() tests=()
while [ $# -gt 0 ]; do
    case $1 in
        --python) pythons+=("$2"); shift 2 ;;
        *) tests+=("$1"); shift ;;
    esac
done
[ ${#tests[@]} != 0 ] || tests=(tests/beton)
if [ ${#pythons[@]} = 0 ]; then
    for minor in 10 11 12 13; do
        if "python3.$minor" --version > /dev/null 2>&1; then pythons+=("python3.$minor"); fi
    done
fi

wheels=()
for package in llvmlite matplotlib numba numpy opencv-python-headless pillow psutil pyyaml torch torchvision; do
    wheels+=(--only-binary "$package")
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
rm -f "$out"
.venv/bin/python tests/support/matrix.py
for python in "${pythons[@]}"; do
    for resolution in lowest-direct highest; do
        rm -rf "$work/venv" "$work/cache" "$work/junit.xml"
        run=$work/venv/bin/python
        "$uv" venv --quiet --python "$python" "$work/venv"
        # Wheels only (fastargs, which is Python, has none): the oldest version that this Python has, not one that it
        # would have to compile. With `train`, as torchvision and timm are what the stages are compared with
        "$uv" pip install --quiet --python "$run" "${wheels[@]}" --resolution "$resolution" -r pyproject.toml --extra train
        "$uv" pip install --quiet --python "$run" hypothesis pytest pytest-xdist
        started=$SECONDS status=0
        XDG_CACHE_HOME=$work/cache "$run" -m pytest -q -n auto --dist loadscope -p no:cacheprovider \
            --junitxml "$work/junit.xml" "${tests[@]}" > "$work/log" 2>&1 || status=$?
        "$run" tests/support/matrix.py "$resolution" "$work/junit.xml" $((SECONDS - started)) "$status" "$out"
        [ $status = 0 ] || { failed=1; grep -E "^(FAILED|ERROR)" "$work/log" | head -40 >&2 || true; }
    done
done
exit $failed
