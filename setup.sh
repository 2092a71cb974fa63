#!/usr/bin/env bash
# Set up: system packages, .venv, the project with its test tools. A second run does nothing.
#
#     ./setup.sh [EXTRA ...]     # extras of pyproject.toml besides test, e.g. cuda
#
# PYTHON names the interpreter to build .venv with (3.11 to 3.13).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() { echo "error: $1" >&2; exit 2; }

python=${PYTHON:-python3}
for extra in "$@"; do  # before anything is removed
    case $extra in
        cuda | fastervit | test) ;;
        *) fail "there is no extra '$extra'; give cuda or fastervit" ;;
    esac
done
command -v "$python" > /dev/null || fail "there is no $python; set PYTHON to a Python of 3.11 to 3.13"
extras=$(IFS=,; echo "test${*:+,}$*")
stamp=.venv/.installed
state=$(cat pyproject.toml setup.sh | cksum; echo "$extras ${PYTHON:-}")
kernels=$(cat setup.py pipelines/kernels/*.cpp pipelines/kernels/*.h | cksum)
is() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
if is "$stamp" "$state"; then
    is .venv/.kernels "$kernels" && exit 0
    echo "=> building the kernels anew"
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps -e .
    echo "$kernels" > .venv/.kernels
    exit 0
fi

debian="libturbojpeg0-dev libopencv-dev pkg-config g++ python3-venv"
conda="conda install -c conda-forge python=3.12 libjpeg-turbo opencv pkg-config cxx-compiler"

# FFCV is compiled against OpenCV and libturbojpeg
have_system_packages() {
    command -v g++ > /dev/null && command -v pkg-config > /dev/null \
        && pkg-config --exists opencv4 libturbojpeg && "$python" -c 'import ensurepip, venv' 2> /dev/null
}

if ! have_system_packages; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    if command -v apt-get > /dev/null && $as_root true 2> /dev/null; then
        echo "=> installing $debian"
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
        # shellcheck disable=SC2086
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $debian > /dev/null
    else
        fail "system packages are missing and this is not root; run: sudo apt-get install $debian   (or: $conda)"
    fi
    have_system_packages || fail "system packages are still missing; run: apt-get install $debian   (or: $conda)"
fi
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
    || fail "$("$python" --version) is not 3.11 to 3.13; set PYTHON to one that is, e.g. PYTHON=python3.12 ./setup.sh"

echo "=> making .venv"
rm -f "$stamp"
"$python" -m venv --clear .venv
# uv downloads in parallel: a third of pip's time for torch and its CUDA libraries
.venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
.venv/bin/uv pip install --quiet --python .venv/bin/python -e ".[$extras]"
.venv/bin/python -c 'import cv2, torch, torchvision, runtime.start'
echo "$kernels" > .venv/.kernels
echo "$state" > "$stamp"
echo "=> set up; now: source .venv/bin/activate"
