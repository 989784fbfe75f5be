"""Speed and calibration of the simulated ECG.

OMP_NUM_THREADS=1 python benchmarks/simulate_ecg.py                         # ms per subject, one core
python benchmarks/simulate_ecg.py --calibrate --subjects 400 --seed 2024    # the gain that gives men 1 mV in II
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.electrics import GAIN_MV, simulate_ecg
from ecgcmr.simulation.heart import Heart, Purpose
from ecgcmr.simulation.population import draw_heart
from ecgcmr.simulation.subject import simulate_subject

STAGES = ("heart", "ecg", "subject without cine", "subject with mid3")


def ecg_seconds(heart: Heart, design: Design) -> float:
    begin = time.process_time()
    simulate_ecg(heart, heart.stream(Purpose.ELECTRICS), design=design.electrics, acquisition=design.acquisition)
    return time.process_time() - begin


def speed(n: int, seed: int) -> dict[str, float]:
    """Median CPU milliseconds per subject of each stage."""
    design = Design()
    simulate_subject(design, seed, 0, cine="mid3")  # compile before timing
    spent: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for subject in range(n):
        begin = time.process_time()
        heart = draw_heart(design, seed, subject)
        spent["heart"].append(time.process_time() - begin)
        spent["ecg"].append(ecg_seconds(heart, design))
        for stage, cine in (("subject without cine", "none"), ("subject with mid3", "mid3")):
            begin = time.process_time()
            simulate_subject(design, seed, subject, cine=cine)  # type: ignore[arg-type]
            spent[stage].append(time.process_time() - begin)
    return {stage: 1000.0 * float(np.median(seconds)) for stage, seconds in spent.items()}


def calibrated_gain(n: int, seed: int) -> tuple[float, float]:
    """Median R in lead II of healthy men [mV] at the present gain, and the gain that makes it 1 mV."""
    design = Design.healthy()
    sizes: list[float] = []
    subject = 0
    while len(sizes) < n:
        heart = draw_heart(design, seed, subject)
        subject += 1
        if heart.sex != 1:
            continue
        beat = simulate_ecg(heart, heart.stream(Purpose.ELECTRICS), design=design.electrics).beat
        start, stop = (beat.onset_index + int(x) for x in beat.qrs_ms)
        sizes.append(float(beat.leads[LEADS.index("II"), start : stop + 1].max()))
    median = float(np.median(sizes))
    return median, GAIN_MV / median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=50)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--calibrate", action="store_true")
    arguments = parser.parse_args()
    if arguments.calibrate:
        median, gain = calibrated_gain(arguments.subjects, arguments.seed)
        print(
            f"median R in II of {arguments.subjects} healthy men: {median:.3f} mV; GAIN_MV = {gain:.2f} makes it 1 mV"
        )
        return
    for stage, ms in speed(arguments.subjects, arguments.seed).items():
        print(f"{stage}: {ms:.1f} ms of CPU")


if __name__ == "__main__":
    main()
