#!/usr/bin/env bash
# Set up: .venv with the project, what its scripts and tests need, and stock FFCV where it can be compiled. A second
# run does nothing.
#
#     ./setup.sh [EXTRA ...]     # further extras of pyproject.toml: cuda, fastervit
#     ./setup.sh peers           # instead: .venv-peers, which has the loaders of other projects too (3 GB)
#
# PYTHON names the interpreter to build .venv with (3.10 to 3.13).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() { echo "error: $1" >&2; exit 2; }

python=${PYTHON:-python3} venv=.venv
for extra in "$@"; do  # before anything is removed
    case $extra in
        cuda | fastervit) ;;
        peers) venv=.venv-peers ;;
        *) fail "there is no extra '$extra'; give cuda, fastervit or peers" ;;
    esac
done
command -v "$python" > /dev/null || fail "there is no $python; set PYTHON to a Python of 3.10 to 3.13"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
    || fail "$("$python" --version) is not 3.10 to 3.13; set PYTHON to one that is, e.g. PYTHON=python3.12 ./setup.sh"

have_compiler() { command -v g++ > /dev/null && "$python" -c 'import ensurepip, venv' 2> /dev/null; }
have_headers() { command -v pkg-config > /dev/null && pkg-config --exists opencv4 libturbojpeg; }  # FFCV's

extras=$(IFS=,; echo "test${*:+,}$*")
state="$(cat pyproject.toml setup.sh | cksum) $extras ${PYTHON:-} headers: $(have_headers && echo yes || echo no)"
kernels=$(cat setup.py beton/kernels/*.cpp beton/kernels/*.h | cksum)
is() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }
install() { $venv/bin/uv pip install --quiet --python $venv/bin/python "$@"; }
if is $venv/.installed "$state"; then
    is $venv/.kernels "$kernels" && exit 0
    echo "=> building the kernels anew"
    install --no-deps -e .
    echo "$kernels" > $venv/.kernels
    exit 0
fi

# apt-get install what is named, if this may be done without a question
apt_install() {
    local as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo -n"
    command -v apt-get > /dev/null && $as_root true 2> /dev/null || return 1
    echo "=> installing $*"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq \
        && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" > /dev/null
}

if ! have_compiler; then
    apt_install g++ python3-venv && have_compiler \
        || fail "a C++ compiler or Python's venv is missing; run: sudo apt-get install g++ python3-venv"
fi

echo "=> making $venv"
rm -f $venv/.installed
"$python" -m venv --clear $venv
# uv downloads in parallel: a third of pip's time for torch and its CUDA libraries
$venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
install -e ".[$extras]"
headers="libturbojpeg0-dev libopencv-dev pkg-config"
# shellcheck disable=SC2086
if have_headers || { apt_install $headers 2> /dev/null && have_headers; }; then
    install -e ".[$extras,ffcv]" 2> $venv/ffcv.log && rm $venv/ffcv.log \
        || echo "=> without stock FFCV, which cannot be compiled here ($venv/ffcv.log says why); all else works"
else
    echo "=> without stock FFCV, whose headers are missing (sudo apt-get install $headers); all else works"
fi
if [ $venv = .venv-peers ] && ! command -v ffmpeg > /dev/null; then
    apt_install ffmpeg || echo "=> without SPDL, which needs FFmpeg's libraries (sudo apt-get install ffmpeg)"
fi
# Compiles to byte code what the scripts import; the first start of one would take 8 s longer. uv's own option compiles
# all that is installed, three times as much
$venv/bin/python -c 'import cv2, matplotlib.pyplot, torch, torchvision.transforms.v2
import runtime.profiling.report, runtime.training.engine, runtime.training.models, runtime.training.run
from beton import Loader, kernels, write; kernels.library_path()'
echo "$kernels" > $venv/.kernels
# The headers may have come just now
echo "${state%headers:*}headers: $(have_headers && echo yes || echo no)" > $venv/.installed
echo "=> set up; now: source $venv/bin/activate"
