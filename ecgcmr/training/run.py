"""pretrain(config) and finetune(config): one run, from the top to the bottom."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import torch

from ecgcmr.hub.weights import save_weights
from ecgcmr.models.norm import convert_batch_norm
from ecgcmr.objectives.base import Objective
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.registry import OBJECTIVES, build_objective
from ecgcmr.training.allocator import keep_freed_memory
from ecgcmr.training.config import RunConfig, load_config
from ecgcmr.training.data import check_labels, find_facts, learned_kinds, open_feeds
from ecgcmr.training.distributed import (
    check_processes,
    check_trackers,
    close_accelerator,
    name_lost_processes,
    start_accelerator,
    start_processes,
)
from ecgcmr.training.initialize import load_initial
from ecgcmr.training.keeper import LAST, load_for_resume, recover_all
from ecgcmr.training.learning_curves import draw_learning_curves
from ecgcmr.training.loop import Feeds, Trainer
from ecgcmr.training.precision import agree_on_precision
from ecgcmr.training.probe import load_probe, probe_run
from ecgcmr.training.products import float32_products
from ecgcmr.training.progress import ProgressCallback, show_progress
from ecgcmr.training.randomness import derive_seed
from ecgcmr.training.rows import Rows, open_rows
from ecgcmr.training.runfolder import open_folder, run_log, start_folder, write_json
from ecgcmr.training.runlock import RunLock, on_main_process
from ecgcmr.training.sharding import is_sharded
from ecgcmr.training.signals import stop_on_signal
from ecgcmr.training.sources import Source, open_source
from ecgcmr.training.summary import make_card, summarize
from ecgcmr.training.whole_state import gather_state, whole_objective

log = logging.getLogger(__name__)


def pretrain(config: RunConfig, resume: bool | str = False, progress: ProgressCallback | bool = False) -> Path:
    """Run one stage of representation learning: whatever objective the configuration names.

    Args:
        config: The run.
        resume: Continue the run in `config.folder` if there is one; a finished run is left as it is. The name of a
            checkpoint ("previous", "epoch-00010") continues from that one instead of the last.
        progress: A callback that gets each step, True for a bar in the terminal, False for neither.

    Returns:
        The run folder, with the exported weights in `weights/`.

    Raises:
        ValueError, FileNotFoundError: If the configuration, the cohort or the initial weights do not fit together.
        RunInterrupted: After SIGTERM or Ctrl-C, when the checkpoint is written.
        OSError: If a checkpoint cannot be written; the one before it is intact.
    """
    return _run(config, resume, progress)


def finetune(config: RunConfig, resume: bool | str = False, progress: ProgressCallback | bool = False) -> Path:
    """Learn labels, usually from an encoder that `init` names; arguments, result and errors as `pretrain`.

    With `probe` in the configuration a linear probe is trained first, in the folder `probe/` of the run.

    Raises:
        ValueError: Also if no label is named.
    """
    if not config.data.labels:
        raise ValueError("data.labels is empty: name the labels to learn, for instance data.labels=[lvef,lvm]")
    if config.probe is not None:
        first = probe_run(config)
        open_folder(config, bool(resume))  # refuses a folder that holds something else before the probe goes into it
        _run(first, bool(resume), progress)
    return _run(config, resume, progress)


def _run(config: RunConfig, resume: bool | str, progress: ProgressCallback | bool) -> Path:
    state = start_processes(config.train.timeout_seconds)
    check_processes(config.train.processes, state.num_processes)
    check_trackers(config.train.trackers)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    keep_freed_memory()
    lock, processes = RunLock(config.folder), (state.is_main_process, state.num_processes)
    with closing(lock):
        on_main_process(
            lock.acquire_existing, *processes
        )  # first: who finds a run here shall hear that it is under way
        continues = open_folder(config, bool(resume)) and (resume if isinstance(resume, str) else LAST)
        state.wait_for_everyone()
        if continues and _is_finished(config.folder):
            log.info("%s is finished; nothing to do", config.folder)
            return config.folder

        def start() -> None:
            lock.acquire()
            if bool(open_folder(config, bool(resume))) != bool(continues):
                raise ValueError(f"{config.folder}: another process has started a run here meanwhile; --resume goes on")

        return _run_in_folder(config, continues, progress, lambda: on_main_process(start, *processes))


def _run_in_folder(
    config: RunConfig, continues: str | Literal[False], progress: ProgressCallback | bool, start: Callable[[], None]
) -> Path:
    """Build, call `start` before anything is written, and train."""
    state = start_processes()
    with (
        run_log(config.folder, state.is_main_process) as run_file,
        name_lost_processes(config.folder, state.num_processes),
    ):
        source = open_source(config.data)
        objective, feeds, facts = _build(config, source)
        load_initial(objective, config.init, source)
        if config.probe is not None:
            load_probe(objective, config.folder)
        if state.num_processes > 1:
            convert_batch_norm(objective)
        if continues:
            precision: str = load_config(config.folder / "config.yaml").train.precision
        else:
            precision = agree_on_precision(config.train.precision, objective, state.device)
        config = config.with_values(**{"train.precision": precision})
        start()
        if state.is_main_process:
            start_folder(config)
            run_file.open()
        with float32_products(config.train.products, state.device):
            _train(config, source, objective, (feeds, facts), (continues, progress if state.is_main_process else False))
    return config.folder


def _build(config: RunConfig, source: Source) -> tuple[Objective, Feeds, DataFacts]:
    """Build the objective for the data, and open the data that the objective reads."""
    check_labels(source, config.data, learned_kinds(config.objective.name))
    if config.data.tabular and not OBJECTIVES[config.objective.name].reads_tabular:
        raise ValueError(f"data.tabular is set, but objective.name={config.objective.name} reads no tabular inputs")
    feeds = None
    if config.data.labels or config.data.tabular:
        # The objective needs statistics of labels and inputs, so the data comes first; its modality stands in the run
        # file, and an alignment has both.
        modality = getattr(config.objective, "modality", None)
        feeds = open_feeds(source, config.data, {modality} if modality else {"ecg", "cmr"})
    facts = find_facts(source, config.data, feeds.train if feeds else None)
    torch.manual_seed(derive_seed(config.seed, "initial weights"))
    objective = build_objective(config.objective, config.model, facts)
    if feeds is None:
        feeds = open_feeds(source, config.data, {"ecg", "cmr"} & set(objective.encoders()))
    return objective, feeds, facts


def _train(
    config: RunConfig,
    source: Source,
    objective: Objective,
    data: tuple[Feeds, DataFacts],
    how: tuple[str | Literal[False], ProgressCallback | bool],
) -> None:
    (feeds, facts), (continues, progress) = data, how
    folder, train = config.folder, config.train
    accelerator = start_accelerator(train.precision, train.trackers, folder)
    if accelerator.is_main_process:
        recover_all(folder / "checkpoints")
    accelerator.wait_for_everyone()
    checkpoint, best = load_for_resume(folder / "checkpoints", continues) if continues else (None, None)
    rows = Rows()
    try:
        if accelerator.is_main_process:
            rows = open_rows(folder, checkpoint.meta if checkpoint else {})
        if train.trackers:
            accelerator.init_trackers(config.name, config={"run": json.dumps(config.model_dump(mode="json"))})
        with show_progress(progress) as report:
            trainer = Trainer(config, accelerator, objective, feeds, rows, report)
            if checkpoint:
                trainer.resume(checkpoint, best)
            log.info(
                "%d steps of %d samples; learning rate %.3g",
                trainer.total_steps,
                trainer.global_batch,
                trainer.schedule.lr,
            )
            with stop_on_signal() as stop, trainer.saver:
                trainer.fit(stop)
        objective = _learned(trainer)
        if accelerator.is_main_process:
            _export(trainer, objective, source, facts)
        accelerator.wait_for_everyone()
    finally:
        rows.close()
        if accelerator.is_main_process:
            draw_learning_curves(folder)
        close_accelerator(accelerator)


def _learned(trainer: Trainer) -> Objective:
    """Give the best weights, the last ones without validation; whole on the main process, which exports them."""
    if trainer.best_state is None and trainer.state.ema is not None:
        trainer.state.ema.copy_to_module()
    last, _ = gather_state(trainer.objective) if is_sharded(trainer.objective) else ({}, {})
    state = trainer.best_state or last
    return whole_objective(trainer.objective, state) if state else trainer.objective


def _export(trainer: Trainer, objective: Objective, source: Source, facts: DataFacts) -> None:
    """Write weights/ from the objective, then summary.json: the run is over."""
    folder = trainer.config.folder
    _check_trained(trainer, objective)
    # An objective may feed its head otherwise than by the plain embedding; whoever loads the head must know.
    options = {"double_fc_norm": True} if getattr(trainer.config.objective, "double_fc_norm", False) else {}
    parts = objective.encoders()
    if {"head", "tabular"} <= set(parts):
        options["tabular"] = True
    save_weights(
        folder / "weights",
        parts,
        source.ecg_pipeline,
        source.cmr_pipeline,
        make_card(trainer, source),
        options,
    )
    summary = summarize(trainer, facts)
    write_json(folder / "summary.json", summary)
    trainer.saver.keeper.finish()
    seconds, rate = summary["seconds"], summary["samples_per_second"]
    waited = 100 * summary["wait_share"]
    log.info("finished in %.1f s (%.0f samples/s, %.1f %% waited for data): %s", seconds, rate, waited, folder)


def _check_trained(trainer: Trainer, objective: Objective) -> None:
    """Refuse to export weights that learned nothing or are not finite.

    Raises:
        ValueError: Says how many steps were skipped, or names the tensor.
    """
    position = trainer.position
    advice = "lower optim.lr, set train.precision=no, or look for values that are not finite in the cohort"
    if position.step and position.skipped == position.step:
        raise ValueError(f"all {position.step} steps were skipped, because their loss was not finite; {advice}")
    for name, value in objective.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} is not finite after training, so no weights are exported; {advice}")


def _is_finished(folder: Path) -> bool:
    path = folder / "summary.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("status") == "finished"
