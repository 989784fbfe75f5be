"""Evaluate fine-tuned weights, as `ecgcmr evaluate`: python scripts/evaluate.py --weights W --cohort C --out OUT."""

import typer

from ecgcmr.cli.evaluate import evaluate

if __name__ == "__main__":
    typer.run(evaluate)
