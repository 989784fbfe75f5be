"""Pretrain encoders: accelerate launch scripts/pretrain.py --config configs/pretrain/ecg_mae.yaml KEY=VALUE ..."""

from ecgcmr.training.program import run_program
from ecgcmr.training.run import pretrain

if __name__ == "__main__":
    raise SystemExit(run_program(pretrain, __doc__))
