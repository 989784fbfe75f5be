#!/usr/bin/env bash
# Rebuild the released weights: simulate, ingest, pretrain, align, train heads, evaluate, pack. Repeat the command after
# a kill: it goes on. About two hours on two cores with bf16. SUBJECTS, STEPS (a cap on every stage) and OUT make it small, to try it:
#
#   ECGCMR_SHARED_DATA=DIR scripts/release_weights.sh
#
# DIR holds ptbxl_zscored (docs/real_ecg.md); without it the encoders for z-scored leads and the study are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
RUNS="${RUNS:-runs/release}"
OUT="${OUT:-weights}"
REAL="${ECGCMR_SHARED_DATA:-../shared/data}/ptbxl_zscored"
cap() { if [ -n "${STEPS:-}" ] && [ "$STEPS" -lt "$1" ]; then echo "$STEPS"; else echo "$1"; fi; }

train() {  # train RECIPE NAME STEPS [KEY=VALUE...]
  [ -e "$RUNS/$2/weights" ] || python "scripts/$([ "$1" = head ] && echo finetune || echo pretrain).py" --resume \
    --config "configs/release/$1.yaml" name="$2" out="$RUNS/$2" data.cohort="$RUNS/simulated" train.max_steps="$(cap "$3")" "${@:4}"
}

# One size: masked modelling, alignment, head; with real ECGs also the encoder for z-scored leads.
size() {  # size SIZE MAE_STEPS ALIGN_STEPS LR_FACTOR_OVERRIDES...
  local name=$1 mae=$2 align=$3 simulated=$4 real=$5
  local network=(model.ecg.preset="$name") mae_lr=2.0e-3 lr=1.0e-3 drop=0.25
  if [ "$name" = tiny ]; then network+=(model.ecg.patch=25) mae_lr=1.0e-3 lr=5.0e-4 drop=0.6; fi
  train ecg_mae "ecg_${name}_mae" "$mae" "${network[@]}" optim.lr=$mae_lr
  train align "ecg_${name}_aligned" "$align" "${network[@]}" optim.lr=$lr objective.token_drop=$drop \
    init.ecg="$RUNS/ecg_${name}_mae/weights" init.cmr="$RUNS/cmr_simclr/weights"
  train head "ecg_${name}_head" 100000 "${network[@]}" init.ecg="$RUNS/ecg_${name}_aligned/weights"
  [ -d "$REAL" ] || return 0
  train real_mae "ecg_${name}_zscored_simulated" "$simulated" "${network[@]}" optim.lr=$lr data.val_subjects=1000 \
    train.eval_every=1 init.ecg="$RUNS/ecg_${name}_mae/weights"
  train real_mae "ecg_${name}_zscored" "$real" "${network[@]}" optim.lr=$lr data.cohort="$RUNS/ptbxl" \
    init.ecg="$RUNS/ecg_${name}_zscored_simulated/weights"
}

[ -e "$RUNS/simulated/cohort.json" ] ||
  ecgcmr simulate --subjects "${SUBJECTS:-30000}" --seed 2026 --cine mid3 --workers 2 --out "$RUNS/simulated"
if [ -d "$REAL" ] && [ ! -e "$RUNS/ptbxl/cohort.json" ]; then
  ecgcmr ingest --ecg "$REAL" --unit z --labels "$REAL/labels.csv" --item-column ecg_id --subject-column patient_id \
    --split-column strat_fold --split train=1,2,3,4,5,6 --split val=7 --split test=8 \
    --provenance "PTB-XL sample, CC BY 4.0" --out "$RUNS/ptbxl"
fi
train cmr_simclr cmr_simclr 1200
size nano 5000 2000 820 1500
size tiny 1500 900 330 900

# Numbers for the cards, then the folders: half precision, which `pack` refuses where it moves an output by more than 0.001.
arms=()
for name in nano tiny; do
  if [ -d "$REAL" ]; then arms+=(--arm "$RUNS/ecg_${name}_zscored/weights"); fi
done
if [ -d "$REAL" ]; then
  python scripts/released_study.py --cohort "$RUNS/ptbxl" "${arms[@]}" --out "$RUNS/study" --seeds "${SEEDS:-5}"
fi
for name in nano tiny; do
  card() { python scripts/release_cards.py --simulated "$RUNS/simulated" --name "$1" --weights "$RUNS/$1/weights" --out "$RUNS/cards/$1.yaml" "${@:2}"; }
  card "ecg_${name}_mae"
  ecgcmr weights pack "$RUNS/ecg_${name}_mae" --out "$OUT/ecg_${name}_mae" --dtype float16 --card "$RUNS/cards/ecg_${name}_mae.yaml"
  ecgcmr weights pack "$RUNS/ecg_${name}_aligned" "$RUNS/ecg_${name}_head" --out "$RUNS/packed/ecg_${name}_aligned"
  python scripts/release_cards.py --simulated "$RUNS/simulated" --name "ecg_${name}_aligned" \
    --weights "$RUNS/packed/ecg_${name}_aligned" --out "$RUNS/cards/ecg_${name}_aligned.yaml"
  ecgcmr weights pack "$RUNS/packed/ecg_${name}_aligned" --out "$OUT/ecg_${name}_aligned" --dtype float16 \
    --card "$RUNS/cards/ecg_${name}_aligned.yaml"
  [ -d "$REAL" ] || continue
  card "ecg_${name}_zscored" --no-simulated-metrics --study "$RUNS/study/results.json"
  ecgcmr weights pack "$RUNS/ecg_${name}_zscored" --out "$OUT/ecg_${name}_zscored" --dtype float16 --card "$RUNS/cards/ecg_${name}_zscored.yaml"
done
ecgcmr weights index "$OUT"
ecgcmr weights verify "$OUT"/ecg_*
