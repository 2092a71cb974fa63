#!/usr/bin/env bash
# Builds a wheel, checks that it needs no library that a system may lack, installs it into a new environment for each
# Python, and there, without compiler and headers, writes a .beton, reads it and trains on it.
#
#     tests/wheel.sh [PYTHON ...]     # default: those of python3.10 ... python3.13 that are there
#
# Needs ./setup.sh to have run. WHEEL_OUT names a folder for the wheel.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "error: $1" >&2; exit 1; }

uv=$PWD/.venv/bin/uv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pythons=("$@")
if [ ${#pythons[@]} = 0 ]; then
    for minor in 10 11 12 13; do
        if command -v "python3.$minor" > /dev/null; then pythons+=("python3.$minor"); fi
    done
fi

# The platform that wheels of torch are for: glibc 2.28 and the libstdc++ of GCC 8, which is checked below
platform=manylinux_2_28_$(uname -m)
out=${WHEEL_OUT:-$work/wheel}
"$uv" build --quiet --wheel --out-dir "$out" "-C--build-option=--plat-name=$platform"
wheel=$(echo "$out"/*-py3-none-"$platform".whl)
[ -f "$wheel" ] || fail "there is no wheel for every Python in $out"

mkdir "$work/content"
.venv/bin/python -m zipfile -e "$wheel" "$work/content"
other=$(cd "$work/content" && find . -type f ! -path './beton/*.py' ! -path './beton/kernels/_kernels.so' \
    ! -path './ffcv_toolkit-*.dist-info/*')
[ -z "$other" ] || fail "the wheel holds $other"
library=$work/content/beton/kernels/_kernels.so
needed=$(readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' \
    | grep -vE '^(libc|libm|libstdc\+\+|libgcc_s|ld-linux.*)\.so\.[0-9]+$' || true)
[ -z "$needed" ] || fail "the kernels need $needed"
if ldd "$library" | grep "not found"; then fail "the kernels lack a library"; fi
# The newest symbol of each library, and the newest that there may be
while read -r name most; do
    newest=$(objdump -T "$library" | grep -oE "\b${name}_[0-9.]+" | sort -uV | tail -1)
    [ "$(printf '%s\n' "$newest" "${name}_$most" | sort -V | tail -1)" = "${name}_$most" ] \
        || fail "the kernels need $newest, and $platform has ${name}_$most"
    echo "newest of $name: ${newest:-none}"
done <<< $'GLIBC 2.28\nGLIBCXX 3.4.25\nCXXABI 1.3.11'
echo "$(basename "$wheel"): $(stat -c %s "$wheel") bytes; needs libc, libm, libstdc++ and libgcc only"

for python in "${pythons[@]}"; do
    rm -rf "$work/venv" "$work/home" && mkdir "$work/home"
    "$uv" venv --quiet --python "$python" "$work/venv"
    "$uv" pip install --quiet --python "$work/venv/bin/python" "$wheel"
    (cd "$work/home" && env -i PATH="$work/venv/bin" HOME="$work/home" "$work/venv/bin/python" -I \
        "$OLDPWD/tests/support/wheel_user.py")
done
