#!/usr/bin/env bash
# Rebuild the released weights: simulate, ingest, pretrain, align, train heads, evaluate, pack. Everything is resumable: repeat the command after a kill.
#
#   ECGCMR_SHARED_DATA=DIR scripts/release_weights.sh
#
# DIR holds ptbxl_zscored (docs/real_ecg.md); without it the encoders for z-scored leads are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
RUNS=runs/release
REAL="${ECGCMR_SHARED_DATA:-../shared/data}/ptbxl_zscored"
SUBJECTS="${SUBJECTS:-30000}"
train() {  # train RECIPE NAME [KEY=VALUE...]
  [ -e "$RUNS/$2/weights" ] || python "scripts/$([ "$1" = head ] && echo finetune || echo pretrain).py" --resume \
    --config "configs/release/$1.yaml" name="$2" out="$RUNS/$2" "${@:3}"
}
TINY=(model.ecg.preset=tiny model.ecg.patch=25)

[ -e "$RUNS/simulated/cohort.json" ] ||
  ecgcmr simulate --subjects "$SUBJECTS" --seed 2026 --cine mid3 --workers 2 --out "$RUNS/simulated"
train cmr_simclr cmr_simclr
