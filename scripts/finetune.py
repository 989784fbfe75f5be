"""Learn labels: accelerate launch scripts/finetune.py --config configs/finetune/phenotypes.yaml KEY=VALUE ..."""

from ecgcmr.training.program import run_program
from ecgcmr.training.run import finetune

if __name__ == "__main__":
    raise SystemExit(run_program(finetune, __doc__))
