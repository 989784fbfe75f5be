#!/usr/bin/env bash
# Rebuild the released weights: simulate, ingest, pretrain, align, train heads, evaluate, pack. About two hours on two idle
# cores with bf16. Repeat the command after a kill: finished stages are left alone, the one that was killed goes on.
#
#   ECGCMR_SHARED_DATA=DIR scripts/release_weights.sh
#
# DIR holds ptbxl_zscored (docs/real_ecg.md); without it the encoders for z-scored leads and the study are left out.
# SUBJECTS (1,200 or more), STEPS (a cap on every stage), SEEDS, RUNS and OUT make it small, to try it.
set -euo pipefail
cd "$(dirname "$0")/.."
RUNS="${RUNS:-runs/release}"
OUT="${OUT:-weights}"
REAL="${ECGCMR_SHARED_DATA:-../shared/data}/ptbxl_zscored"
cap() { if [ -n "${STEPS:-}" ] && [ "$STEPS" -lt "$1" ]; then echo "$STEPS"; else echo "$1"; fi; }

SMALL=()
if [ "${SUBJECTS:-30000}" -lt 10000 ]; then SMALL=(data.val_subjects=null); fi  # fewer to validate on than the recipes take

train() {  # train RECIPE NAME STEPS [KEY=VALUE...]
  local program=pretrain
  if [ "$1" = head ]; then program=finetune; fi
  [ -e "$RUNS/$2/weights" ] || python "scripts/$program.py" --resume --config "configs/release/$1.yaml" name="$2" \
    out="$RUNS/$2" data.cohort="$RUNS/simulated" train.max_steps="$(cap "$3")" "${@:4}" "${SMALL[@]}"
}

[ -e "$RUNS/simulated/cohort.json" ] ||
  ecgcmr simulate --subjects "${SUBJECTS:-30000}" --seed 2026 --cine mid3 --workers 2 --out "$RUNS/simulated"
if [ -d "$REAL" ] && [ ! -e "$RUNS/ptbxl/cohort.json" ]; then
  ecgcmr ingest --ecg "$REAL" --unit z --labels "$REAL/labels.csv" --item-column ecg_id --subject-column patient_id \
    --split-column strat_fold --split train=1,2,3,4,5,6 --split val=7 --split test=8 \
    --provenance "PTB-XL sample, CC BY 4.0" --out "$RUNS/ptbxl"
fi

TINY=(model.ecg.preset=tiny model.ecg.patch=25)
train cmr_simclr cmr_simclr 1200
train ecg_mae ecg_nano_mae 5000
train align ecg_nano_aligned 2000 init.ecg="$RUNS/ecg_nano_mae/weights" init.cmr="$RUNS/cmr_simclr/weights"
train head ecg_nano_head 656 init.ecg="$RUNS/ecg_nano_aligned/weights"
# The larger network meets the image encoder that the smaller one was aligned with, and leaves it as it is.
train ecg_mae ecg_tiny_mae 1500 "${TINY[@]}" optim.lr=1.0e-3
train align ecg_tiny_aligned 600 "${TINY[@]}" optim.lr=5.0e-4 objective.token_drop=0.7 objective.freeze_cmr=true \
  train.eval_every=1 init.ecg="$RUNS/ecg_tiny_mae/weights" init.cmr="$RUNS/ecg_nano_aligned/weights"
train head ecg_tiny_head 246 "${TINY[@]}" optim.warmup_epochs=0.3 init.ecg="$RUNS/ecg_tiny_aligned/weights"
if [ -d "$REAL" ]; then
  train real_mae ecg_nano_zscored_simulated 820 data.val_subjects=1000 train.eval_every=2 \
    init.ecg="$RUNS/ecg_nano_mae/weights"
  train real_mae ecg_nano_zscored 1500 data.cohort="$RUNS/ptbxl" init.ecg="$RUNS/ecg_nano_zscored_simulated/weights"
  train real_mae ecg_tiny_zscored_simulated 330 "${TINY[@]}" optim.lr=5.0e-4 data.val_subjects=1000 train.eval_every=1 \
    init.ecg="$RUNS/ecg_tiny_mae/weights"
  train real_mae ecg_tiny_zscored 900 "${TINY[@]}" optim.lr=5.0e-4 data.cohort="$RUNS/ptbxl" \
    init.ecg="$RUNS/ecg_tiny_zscored_simulated/weights"
  # Fold 8, read here and nowhere before. The larger network takes half of its tokens, fewer steps and fewer draws.
  study() {  # study NAME OUT [OPTIONS...]
    python scripts/released_study.py --cohort "$RUNS/ptbxl" --arm "$RUNS/$1/weights" --out "$RUNS/study/$2" "${@:3}"
  }
  study ecg_nano_zscored ecg_nano_zscored --counts 50 200 --steps "$(cap 150)" "$(cap 300)" --seeds "${SEEDS:-5}"
  study ecg_nano_zscored ecg_nano_zscored_all --counts 0 --steps "$(cap 400)" --seeds "${SEEDS:-3}"
  study ecg_tiny_zscored ecg_tiny_zscored --counts 50 200 --steps "$(cap 75)" "$(cap 100)" --seeds "${SEEDS:-3}" \
    --set objective.token_drop=0.5
fi

# Cards with measured numbers, then the folders in half precision, which `pack` refuses where an output moves by more
# than 0.001.
publish() {  # publish NAME FOLDER [OPTIONS OF THE CARD...]
  python scripts/release_cards.py --name "$1" --weights "$2" --simulated "$RUNS/simulated" --out "$RUNS/cards/$1.yaml" "${@:3}"
  local exact=()
  if [[ "$1" = *_aligned ]]; then exact=(--exact cmr,cmr_projection); fi  # half precision moves these by about 0.001
  ecgcmr weights pack "$2" --out "$OUT/$1" --dtype float16 "${exact[@]}" --card "$RUNS/cards/$1.yaml"
}
for size in nano tiny; do
  subjects=()
  if [ "$size" = tiny ]; then subjects=(--train-subjects 1500 --test-subjects 2000 --bf16); fi
  publish "ecg_${size}_mae" "$RUNS/ecg_${size}_mae/weights" "${subjects[@]}"
  python scripts/calibrate_head.py --weights "$RUNS/ecg_${size}_head/weights" --cohort "$RUNS/simulated" \
    --out "$RUNS/ecg_${size}_head_intervals"
  ecgcmr weights pack "$RUNS/ecg_${size}_aligned" "$RUNS/ecg_${size}_head_intervals" --out "$RUNS/packed/ecg_${size}_aligned"
  publish "ecg_${size}_aligned" "$RUNS/packed/ecg_${size}_aligned" "${subjects[@]}"
  [ -d "$REAL" ] || continue
  publish "ecg_${size}_zscored" "$RUNS/ecg_${size}_zscored/weights" --no-simulated-metrics \
    --study "$RUNS/study/ecg_${size}_zscored"*/results.json
done
ecgcmr weights index "$OUT"
ecgcmr weights verify "$OUT"/ecg_*
