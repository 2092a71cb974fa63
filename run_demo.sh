#!/usr/bin/env bash
# From photos to a trained ResNet-18 and a report, with our loader, the standard one and, if installed, stock FFCV.
#
#     ./run_demo.sh                                  # on photos that it makes itself
#     ./run_demo.sh --data FOLDER --out runs/mine    # on FOLDER/train/<class>/ and FOLDER/val/<class>/
#     further options: --config FILE (recipe), --epochs N, --rounds N (seeds), --workers N, --max-side PIXELS
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() { echo "error: $1" >&2; exit 2; }

data="" out=runs/demo config="" epochs="" rounds=1 side="" workers=$(nproc)
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || fail "$1 needs a value; see the head of run_demo.sh"
    case $1 in
        --data) data=$2 ;;
        --out) out=$2 ;;
        --config) config=$2 ;;
        --epochs) epochs=$2 ;;
        --rounds) rounds=$2 ;;
        --workers) workers=$2 ;;
        --max-side) side=$2 ;;
        *) fail "unknown option '$1'; use --data, --out, --config, --epochs, --rounds, --workers or --max-side" ;;
    esac
    shift 2
done
if [ -n "$data" ]; then
    [ -d "$data/train" ] && [ -d "$data/val" ] || fail "$data has no train/ and val/; give a folder that has both"
    data=$(cd "$data" && pwd)
fi
whole() { [ -z "$2" ] || [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || fail "$1 $2 is not a number from 1 to 99999; give one"; }
whole --epochs "$epochs"; whole --rounds "$rounds"; whole --workers "$workers"; whole --max-side "$side"
[ -z "$config" ] || [ -f "$config" ] || fail "there is no file $config; give --config the path of a recipe"
"$here/setup.sh"
python=$here/.venv/bin/python
mkdir -p "$out" 2> /dev/null || fail "cannot make the folder $out; give another --out"
out=$(cd "$out" && pwd)

if [ -z "$data" ]; then
    data=$out/photos
    config=${config:-$here/rn_configs/demo.yaml} side=${side:-500} load_size=160
    (cd "$here" && "$python" -m beton.sources.generated "$data" --workers "$workers")
fi
config=${config:-$here/rn_configs/clothing_16_epochs.yaml} side=${side:-256} load_size=${load_size:-128}

loaders=beton,torch
if "$python" -c 'import sys, importlib.util as u; sys.exit(u.find_spec("ffcv") is None)'; then loaders+=,ffcv; fi

IMAGENET_DIR=$data WRITE_DIR=$out/betons PYTHON=$python "$here/write_imagenet.sh" "$side" 1.0 90 \
    --cfg.num_workers="$workers"
"$python" "$here/profile_loaders.py" --profile.protocol=load,train --profile.loaders="$loaders" \
    --profile.photos="$data/train" --profile.val_photos="$data/val" \
    --profile.dataset="$out/betons/train_${side}_1.0_90.beton" \
    --profile.val_dataset="$out/betons/val_${side}_1.0_90.beton" \
    --profile.stages="rrc($load_size)|flip|normalize" --profile.num_workers="$workers" \
    --profile.rounds="$rounds" --profile.config="$config" ${epochs:+--profile.epochs="$epochs"} \
    --profile.title="Image loaders side by side" --profile.out="$out/report"
