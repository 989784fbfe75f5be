"""ECG quality: our flags against a plain quality call of neurokit2, interleaved in one run on one thread.

    OMP_NUM_THREADS=1 python benchmarks/ecg_quality.py

The plain call is what its documentation shows, for each of the twelve leads: `ecg_clean`, then `ecg_quality`. Ours
looks at length, gaps, electrodes, noise, amplitude, order of the leads and beats of the whole recording. Times are
those of the processor, so that other programs on the machine disturb them less.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable

import neurokit2 as nk
import numpy as np

from ecgcmr.ecg.beats import find_beats
from ecgcmr.ecg.quality import check_ecg
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.subject import simulate_subject


def plain_quality(recording: EcgRecording) -> list[float]:
    """Mean quality of each lead as neurokit2 rates it."""
    rate = int(recording.rate_hz)
    return [
        float(np.mean(nk.ecg_quality(nk.ecg_clean(row, sampling_rate=rate), sampling_rate=rate)))
        for row in recording.samples
    ]


def plain_beats(recording: EcgRecording) -> int:
    """Number of beats that neurokit2 finds in lead II."""
    rate = int(recording.rate_hz)
    _, found = nk.ecg_peaks(nk.ecg_clean(recording.samples[1], sampling_rate=rate), sampling_rate=rate)
    return len(found["ECG_R_Peaks"])


def seconds(function: Callable[[EcgRecording], object], recordings: list[EcgRecording]) -> float:
    begin = time.process_time()
    for recording in recordings:
        function(recording)
    return (time.process_time() - begin) / len(recordings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; each gives one ratio")
    parser.add_argument("--records", type=int, default=64, help="recordings of ours in each round")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    ecg = [simulate_subject(Design(), 0, subject, "none").ecg for subject in range(arguments.records)]
    ours = {"check_ecg": check_ecg, "find_beats": find_beats}
    theirs = {"check_ecg": plain_quality, "find_beats": plain_beats}
    for function in (*ours.values(), *theirs.values()):
        function(ecg[0])  # compile, import
    times: dict[str, list[float]] = {name: [] for side in ("ours", "plain") for name in (f"{side} {n}" for n in ours)}
    for k in range(arguments.rounds):
        for name in ours:
            times[f"plain {name}"].append(seconds(theirs[name], [ecg[k % len(ecg)]]))
            times[f"ours {name}"].append(seconds(ours[name], ecg))
    result: dict[str, float] = {}
    for name in ours:
        own, plain = np.array(times[f"ours {name}"]), np.array(times[f"plain {name}"])
        result[f"{name}_ms"] = float(1e3 * np.median(own))
        result[f"{name}_ms_best"] = float(1e3 * own.min())
        result[f"{name}_plain_ms"] = float(1e3 * np.median(plain))
        result[f"{name}_ratio"] = float(np.median(plain / own))
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for name in ours:
        print(
            f"{name:12s} {result[f'{name}_ms']:8.3f} ms a recording (best {result[f'{name}_ms_best']:.3f}), "
            f"neurokit2 {result[f'{name}_plain_ms']:8.1f} ms, ratio {result[f'{name}_ratio']:.0f}"
        )


if __name__ == "__main__":
    main()
