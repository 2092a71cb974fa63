#!/usr/bin/env bash
# Write the train and val betons of ImageNet, in whichever form IMAGENET_DIR holds it (docs/sources.md): train/<class>/
# and val/<class>/, the archives of ILSVRC 2012, a tar for each class in train/ and val/, or Parquet files.
#
#     IMAGENET_DIR=... WRITE_DIR=... ./write_imagenet.sh MAX_RESOLUTION JPEG_RATIO JPEG_QUALITY [--cfg.name=value ...]
#
# e.g. `./write_imagenet.sh 500 0.50 90` writes train_500_0.50_90.beton and val_500_0.50_90.beton.
# Further arguments go to write_dataset.py: --cfg.resume=1 resumes after a kill and skips a complete beton. PYTHON names
# another interpreter than .venv's.
set -euo pipefail

fail() { echo "error: $1" >&2; exit 2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 3 ] || fail "three arguments are needed; give MAX_RESOLUTION JPEG_RATIO JPEG_QUALITY, e.g. 500 0.50 90"
photos=${IMAGENET_DIR:-${DATA_DIR:-}}
[ -n "$photos" ] || fail "IMAGENET_DIR (or DATA_DIR) is not set; set it to the folder that holds train/ and val/"
[ -n "${WRITE_DIR:-}" ] || fail "WRITE_DIR is not set; set it to the folder for the betons"
python=${PYTHON:-$here/.venv/bin/python}
command -v "$python" > /dev/null || fail "there is no $python; run ./setup.sh"
resolution=$1 ratio=$2 quality=$3
shift 3
mkdir -p "$WRITE_DIR" 2> /dev/null || fail "cannot make the folder $WRITE_DIR; set WRITE_DIR to another one"

# Source and data_dir of a split
form() {
    local split=$1
    if compgen -G "$photos/$split/*.tar" > /dev/null; then
        echo "imagenet_tars $photos/$split"
    elif [ -d "$photos/$split" ]; then
        echo "imagenet $photos/$split"
    elif compgen -G "$photos/ILSVRC2012_img_*.tar" > /dev/null; then
        echo "imagenet_tars $photos"
    elif [ -n "$(find "$photos" -maxdepth 2 -name '*.parquet' -print -quit 2> /dev/null)" ]; then
        echo "huggingface $photos"
    else
        echo "imagenet $photos/$split"  # whose error says what is missing
    fi
}

for split in train val; do
    read -r dataset data_dir < <(form "$split")
    "$python" "$here/write_dataset.py" \
        --cfg.dataset="$dataset" --cfg.split="$split" --cfg.data_dir="$data_dir" \
        --cfg.write_path="$WRITE_DIR/${split}_${resolution}_${ratio}_${quality}.beton" \
        --cfg.write_mode=proportion --cfg.max_resolution="$resolution" \
        --cfg.compress_probability="$ratio" --cfg.jpeg_quality="$quality" "$@"
done
