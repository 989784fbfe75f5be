"""Speed of the anatomy half of the simulator on one core: CPU milliseconds per subject, best of several rounds.

Run: OMP_NUM_THREADS=1 python benchmarks/simulate_cine.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from ecgcmr.simulation.cine import render_mid3, render_sax
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.four_chamber import render_4ch
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.phenotypes import measure
from ecgcmr.simulation.population import draw_heart


def best_ms(work: Callable[[Heart], object], hearts: list[Heart], rounds: int) -> float:
    """Smallest mean CPU time per heart over the rounds [ms]; the first, compiling call is not counted."""
    work(hearts[0])
    times = []
    for _ in range(rounds):
        start = time.process_time()
        for heart in hearts:
            work(heart)
        times.append((time.process_time() - start) / len(hearts))
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    hearts = [draw_heart(Design(), 0, k) for k in range(8)]
    steps: dict[str, Callable[[Heart], object]] = {
        "draw the heart": lambda heart: draw_heart(Design(), 0, heart.subject),
        "measure phenotypes": measure,
        "three frames of the mid slice": render_mid3,
        "short axis, 9 x 25 frames, masks": render_sax,
        "four-chamber, 25 frames, masks": render_4ch,
    }
    for name, work in steps.items():
        print(f"{name:36s} {best_ms(work, hearts, rounds):8.2f} ms")


if __name__ == "__main__":
    main()
