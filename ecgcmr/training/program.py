"""What the programs in scripts/ share: arguments in, one clear message and an exit code out."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from ecgcmr.training.config import RunConfig, load_config
from ecgcmr.training.distributed import ProcessLostError
from ecgcmr.training.signals import EXIT_INTERRUPTED, RunInterrupted

EXIT_WRONG_INPUT = 2


def run_program(run: Callable[..., Path], description: str, arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and say where the result is.

    Args:
        run: `pretrain` or `finetune`.
        description: First line of --help.
        arguments: The command line; that of the process by default.

    Returns:
        0 after a finished run; 2 for wrong input (one message, no traceback); 75 for an interrupted run that
        `--resume` continues; 1 where the machine failed, for instance with a full disk or a
        process that was killed.
    """
    parser = argparse.ArgumentParser(description=description, epilog="Example: --config FILE train.epochs=5 seed=1")
    parser.add_argument("--config", type=Path, required=True, help="run file, for instance from configs/pretrain")
    parser.add_argument("--resume", action="store_true", help="continue the run in its folder, if there is one")
    parser.add_argument(
        "--resume-from",
        metavar="CHECKPOINT",
        help="continue from another checkpoint of the run than the last: previous, or for instance epoch-00010",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values that replace those of the run file")
    parsed = parser.parse_intermixed_args(arguments)
    # Of several processes only the first one talks; what goes wrong is told by whichever it happens to.
    main = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if main else logging.WARNING, format="%(message)s", stream=sys.stderr)
    for noisy in ("accelerate", "torch", "timm"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        config: RunConfig = load_config(parsed.config, parsed.overrides)
        folder = run(config, resume=parsed.resume_from or parsed.resume, progress=True)
    except RunInterrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except (OSError, ProcessLostError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        _leave_process_group()
    if main:
        print(folder)
    return 0


def _message(error: Exception) -> str:
    """One line, also for what pydantic found where a module's own configuration was checked."""
    if isinstance(error, ValidationError):
        return "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors())
    return str(error)


def _leave_process_group() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
