"""How often each quality flag is raised: on clean recordings, and with a planted defect of stated size.

    OMP_NUM_THREADS=1 python benchmarks/ecg_quality_rates.py --subjects 300

Simulated recordings come from `ecgcmr.simulation` (those with a lost electrode or swapped arms are told by its truth
table). With ECGCMR_SHARED_DATA set, the same is done with the real recordings that lie there.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecgcmr.ecg.leads import LEADS, to_canonical
from ecgcmr.ecg.quality import CODES, check_ecg
from ecgcmr.ecg.readers import open_ecg
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.simulation.defects import DEFECTS
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.subject import simulate_subject


def simulated(n: int, seed: int, **acquisition: float) -> list[EcgRecording]:
    design = Design()
    design = replace(design, acquisition=replace(design.acquisition, **acquisition))
    return [simulate_subject(design, seed, subject, "none").ecg for subject in range(n)]


def real(folder: Path) -> list[EcgRecording]:
    """Recordings in mV of PTB-XL (100 Hz), LUDB and the PhysioNet Challenge 2021, without those with a flat lead."""
    with np.load(folder / "ptbxl_raw_100hz" / "ecg.npz") as arrays:
        found = [EcgRecording(ecg.astype(np.float32) * 1e-3, 100.0, LEADS) for ecg in arrays["ecg"]]
    for path in sorted((folder / "ludb" / "data").glob("*.hea")):
        found.append(to_canonical(open_ecg(path, gain_uv_per_unit=1.0)))
    for path in sorted((folder / "cinc2021" / "records").glob("*.hea")):
        found.append(to_canonical(open_ecg(path)))
    return [recording for recording in found if "flat_lead" not in codes(recording)]


def codes(recording: EcgRecording) -> set[str]:
    return {flag.code for flag in check_ecg(recording)}


def flagged(recordings: Sequence[EcgRecording]) -> dict[str, float]:
    """Share of the recordings with each flag."""
    counts: Counter[str] = Counter()
    for recording in recordings:
        counts.update(codes(recording))
    return {code: counts[code] / len(recordings) for code in CODES if counts[code]}


def sensitivity(recordings: Sequence[EcgRecording], name: str, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    defect = DEFECTS[name]
    found = [bool(codes(defect.plant(recording, rng)) & set(defect.codes)) for recording in recordings]
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    sets = {"simulated": simulated(arguments.subjects, arguments.seed, lead_off_rate=0.0, arm_swap_rate=0.0)}
    if "ECGCMR_SHARED_DATA" in os.environ:
        found = real(Path(os.environ["ECGCMR_SHARED_DATA"]))
        sets["real, 100 Hz"] = [recording for recording in found if recording.rate_hz == 100.0]
        sets["real, 500 or 1000 Hz"] = [recording for recording in found if recording.rate_hz != 100.0]
    result: dict[str, dict[str, object]] = {}
    for kind, recordings in sets.items():
        rates: dict[str, float] = {name: sensitivity(recordings, name) for name in DEFECTS}
        result[kind] = {"n": len(recordings), "clean": flagged(recordings), "planted": rates}
    few = max(50, arguments.subjects // 3)
    lost = simulated(few, arguments.seed + 1, lead_off_rate=1.0, arm_swap_rate=0.0)
    result["simulated"]["planted"]["an electrode floats (simulator)"] = flagged(lost).get("lead_off", 0.0)  # type: ignore[index]
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for kind, rates in result.items():
        print(f"\n{kind}, {rates['n']} recordings; flags on clean ones:")
        for code, share in rates["clean"].items():  # type: ignore[attr-defined]
            print(f"  {code:20s} {share:7.2%}")
        print("  without any flag:" if not rates["clean"] else "  planted defect -> found:")
        for name, share in rates["planted"].items():  # type: ignore[attr-defined]
            print(f"  {name:42s} {share:7.1%}  {', '.join(DEFECTS[name].codes) if name in DEFECTS else 'lead_off'}")


if __name__ == "__main__":
    main()
