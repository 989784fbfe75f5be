"""Checks of the electrodes: lost contact, laws between the limb leads, places exchanged."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import DERIVED_FROM_I_II, LEADS
from ecgcmr.ecg.quality import swaps
from ecgcmr.ecg.quality.case import Case, Findings
from ecgcmr.ecg.quality.kernels import law_residuals

_CODE_OF = {"RA and LA": "swapped_arms", "LA and LL": "swapped_left", "RA and LL": "swapped_right"}


def off(case: Case) -> Findings:
    """Leads that lose the heart for some time."""
    m, limits = case.m, case.limits
    found: dict[str, str] = {}
    beats = m.beats
    for i in np.flatnonzero(case.moving):
        begin, end = m.still[i]
        if (end - begin) * 0.01 >= limits.still_s and ((beats >= begin) & (beats < end)).any():
            found[case.recording.leads[i]] = f"{case.recording.leads[i]} stands still for {(end - begin) * 0.01:.1f} s"
    if len(beats) >= 3 and m.contrast >= limits.contrast:
        share = (m.locked < limits.locked).mean(axis=1)
        blind = [i for i in np.flatnonzero(case.moving) if share[i] >= limits.off_share]
        limb = [i for i in blind if case.recording.leads[i] in ("I", "II", "III")]
        for i in blind:
            name = case.recording.leads[i]
            # a limb lead at a right angle to the heart is small; an electrode that is off spoils two of I, II, III
            if name.startswith("V") or (i in limb and len(limb) >= 2):
                found.setdefault(name, f"{name} does not show {share[i]:.0%} of the beats")
    found.update({name: text for name, text in _floating(case) if name not in found})
    if found:
        yield "lead_off", "; ".join(found.values())


def _floating(case: Case) -> Findings:
    """Electrodes whose leads carry the mains while the others do not."""
    if case.recording.unit != "mV" or not {"I", "II", "III"} <= case.row.keys():
        return
    hum = np.fmax(case.m.mains[:, :, 0], case.m.mains[:, :, 1])  # (L, W)
    if not hum.max() >= case.limits.off_mains_mv:  # also when the sampling rate is too low to tell
        return
    one, two, three = (hum[case.row[lead]] for lead in ("I", "II", "III"))
    electrodes = {"RA": (np.minimum(one, two), three), "LA": (np.minimum(one, three), two)}
    electrodes["LL"] = (np.minimum(two, three), one)
    chest = [lead for lead in LEADS[6:] if lead in case.row]
    if len(chest) >= 3:
        rows = hum[[case.row[lead] for lead in chest]]
        usual = np.sort(rows, axis=0)[len(chest) // 2]
        electrodes |= {lead: (hum[case.row[lead]], usual) for lead in chest}
    for name, (own, others) in electrodes.items():
        windows = np.flatnonzero((own >= case.limits.off_mains_mv) & (own >= 2.0 * others))
        if len(windows):
            yield name, f"{name} picks up {own[windows].max():.2g} mV of the mains for {2 * len(windows)} s"


@lru_cache(maxsize=64)
def _laws(present: tuple[tuple[str, int], ...], n_rows: int) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Weights (E, L) of the sums that vanish, and the lead that each of them is about."""
    row, weights, names = dict(present), [], []
    for lead, (a, b) in DERIVED_FROM_I_II.items():
        if lead in row:
            line = np.zeros(n_rows, np.float32)
            line[[row["I"], row["II"], row[lead]]] = (-a, -b, 1.0)
            weights.append(line)
            names.append(lead)
    return np.array(weights, np.float32).reshape(len(names), n_rows), tuple(names)


def einthoven(case: Case) -> Findings:
    """Limb leads that do not follow from I and II."""
    limbs = tuple((lead, case.row[lead]) for lead in LEADS[:6] if lead in case.row)
    if case.recording.unit != "mV" or len(limbs) < 3 or limbs[0][0] != "I" or limbs[1][0] != "II":
        return
    if not case.moving[[row for _, row in limbs]].all():
        return  # told already
    weights, names = _laws(limbs, len(case.m.mean))
    left = law_residuals(case.m.mean, case.row["I"], case.row["II"], weights)
    if left.max() > case.limits.einthoven:
        wrong = ", ".join(name for name, rest in zip(names, left, strict=True) if rest > case.limits.einthoven)
        yield "einthoven", f"{wrong} differ by {left.max():.0%} from what follows from I and II"


def exchanged_limbs(case: Case) -> Findings:
    """Limb electrodes on each other's places."""
    beat, limits = case.twelve, case.limits
    if beat is None:
        return
    if case.recording.unit != "mV":
        agreement = swaps.lead_one_agrees(beat)
        if agreement < limits.swap_z:
            yield "swapped_arms", f"lead I runs against the precordial leads, correlation {agreement:.2f}"
        return
    height = np.ptp(beat[:3], axis=1)
    weak = int(height.argmin())
    share = float(height[weak] / height.max())
    if share < limits.leg_ratio:
        yield (
            "swapped_leg",
            f"{LEADS[weak]} has {share:.0%} of the largest limb lead, as with the right leg's electrode",
        )
        return
    name, agreement, gain = swaps.limb_exchange(beat)
    code = _CODE_OF.get(name, "swapped_limbs")
    needed = limits.swap_left_gain if code == "swapped_left" else limits.swap_gain
    if agreement >= limits.swap_agreement and gain >= needed:
        yield code, f"{name}? agrees with the precordial leads by {agreement:.2f}, as recorded {agreement - gain:.2f}"


def exchanged_chest(case: Case) -> Findings:
    """Precordial electrodes on each other's places, or in reversed order."""
    beat, limits = case.twelve, case.limits
    if beat is None:
        return
    pair, gain = swaps.precordial_gain(beat)
    if gain >= limits.precordial_gain:
        yield "precordial_order", f"V{pair[0]} and V{pair[1]}? exchanged, the path from V1 to V6 is {gain:.0%} shorter"
        return
    like, rise = swaps.precordial_reversed(beat)
    if like < limits.reversed_like and rise < limits.reversed_rise:
        yield "precordial_order", f"reversed? I correlates with V1 rather than V6 (by {-like:.2f}), and R waves fall"
