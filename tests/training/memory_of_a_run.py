"""Program: one run on a cohort, with what it took in memory and time, as JSON on the last line.

Of resident memory, what the process itself holds is told apart from pages of mapped files, which the system takes back
when others need them. Run: python memory_of_a_run.py RUN_FILE
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from pathlib import Path

FIELDS = {"own": "RssAnon", "mapped": "RssFile", "all": "VmRSS"}


def resident_mib() -> dict[str, float]:
    """Resident memory of this process by kind [MiB]."""
    status = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1024 for name, field in FIELDS.items()}  # type: ignore[index]


class Peak:
    """Largest resident memory of each kind, sampled in a thread of its own."""

    def __init__(self) -> None:
        self.largest = dict.fromkeys(FIELDS, 0.0)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(0.01)

    def look(self) -> None:
        for name, value in resident_mib().items():
            self.largest[name] = max(self.largest[name], value)


def main() -> None:
    from ecgcmr.training import data, load_config, sources
    from ecgcmr.training.run import finetune, pretrain

    config = load_config(sys.argv[1])
    before, peak = resident_mib(), Peak()
    start = time.perf_counter()
    source = sources.open_source(config.data)
    opened = time.perf_counter()
    modality = getattr(config.objective, "modality", None)
    read = {modality} if modality else {"ecg"} if config.objective.name == "masked_ecg" else {"ecg", "cmr"}
    feeds = data.open_feeds(source, config.data, read)
    data.find_facts(source, config.data, feeds.train if config.data.labels else None)
    ready = time.perf_counter()
    del source, feeds
    (finetune if config.data.labels else pretrain)(config)
    peak.look()
    times = {"open_s": opened - start, "feeds_s": ready - opened, "run_s": time.perf_counter() - ready}
    memory = {f"{name}_mib": value for name, value in peak.largest.items()}
    print(json.dumps({**times, **memory, "own_before_mib": before["own"]}))


if __name__ == "__main__":
    main()
