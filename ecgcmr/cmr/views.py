"""Which view each plane of a study is: by normals, by where planes cut one another, by names only in doubt.

The rule, and what it cannot tell:

1. The long axis of the left ventricle is the normal of the short-axis stack. Without a stack (UK Biobank's long-axis
   zips) it is the line that the long-axis planes share, because each of them was planned to hold it; with fewer than
   two planes at an angle, the usual direction of hearts.
2. A plane that holds the axis is named by the direction in which it cuts the short axis (`classify_long_axis`): four
   chambers near the horizontal, two chambers near the vertical, three chambers between vertical and the right.
3. A long-axis view should cut the left ventricle. Where the other planes agree on a line (the ventricle's axis), a
   plane that passes it by more than `MISS_MM` keeps the name of its direction and a note (`OFF_AXIS`): two-chamber
   planes of the right ventricle have the normal of those of the left and differ in nothing but their place.
4. The description decides only near a border between two views; wherever it says something else than the geometry, a
   note says so.

It reads no pixels: it cannot tell a heart that lies mirrored (dextrocardia) or turned by more than the width of a
sector, a five-chamber plane from a four-chamber one, nor whether a plane was planned well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ecgcmr.cmr.geometry import APEX_LPS, Vector, angle_deg, classify_long_axis, is_short_axis, towards_apex

APART_DEG = 30.0  # planes at less than this angle do not fix the line that they share
USUAL_DEG = 40.0  # a shared line farther than this from where hearts point is no long axis
HOLDS_DEG = 12.0  # RMS angle by which planes may miss the line they share
STEEP_DEG = 35.0  # planes that stand off the usual axis by more are not asked for it
SAGITTAL = 0.92  # nearly sagittal planes may be right ventricular outflow views, which need not hold the axis
MISS_MM = 30.0  # a plane this far from the axis does not cut the left ventricle, whose outer radius is about 30 mm
OFF_AXIS = "beside the axis of the left ventricle"  # words of the note about such a plane
AGREE_MM = 12.0  # planes agree on the axis when their median distance from it is less


@dataclass(frozen=True, eq=False)
class Plane:
    """An image plane.

    Attributes:
        center: Its middle, LPS [mm].
        normal: Unit normal, LPS.
        description: What the series is called.
    """

    center: Vector
    normal: Vector
    description: str = ""


def long_axis_from_planes(planes: Sequence[Plane]) -> Vector | None:
    """Unit vector from base to apex (LPS) that the long-axis planes share; None when they do not fix one.

    The direction a with the least sum of squares of (n a) over the normals n, over the planes that stand near the usual
    axis and are not sagittal.
    """
    used = [
        plane.normal
        for plane in planes
        if 90.0 - angle_deg(plane.normal, APEX_LPS) <= STEEP_DEG
        and abs(plane.normal[0]) < SAGITTAL
        and not is_short_axis(plane.normal)
    ]
    if not any(angle_deg(a, b) >= APART_DEG for a, b in combinations(used, 2)):
        return None
    normals = np.array(used)
    values, vectors = np.linalg.eigh(normals.T @ normals)
    axis = towards_apex(np.asarray(vectors[:, 0]))
    missed = np.degrees(np.arcsin(np.sqrt(max(float(values[0]), 0.0) / len(normals))))
    return axis if missed <= HOLDS_DEG and angle_deg(axis, APEX_LPS) <= USUAL_DEG else None


def name_planes(planes: Sequence[Plane], sax_axis: Vector | None) -> list[tuple[str, tuple[str, ...]]]:
    """Name the planes of one study that are not short-axis planes.

    Args:
        planes: The planes.
        sax_axis: Unit vector from base to apex from the short-axis stack, LPS; None without one.

    Returns:
        For each plane its view, and notes where geometry and description disagree or the axis had to be guessed.
    """
    axis = sax_axis if sax_axis is not None else long_axis_from_planes(planes)
    found = [classify_long_axis(plane.normal, axis, plane.description) for plane in planes]
    views = [view for view, _ in found]
    used = APEX_LPS if axis is None else axis
    named: list[tuple[str, tuple[str, ...]]] = []
    for index, (view, note) in enumerate(found):
        notes = [note] if note else []
        if sax_axis is None:
            source = "where the long-axis planes cut one another" if axis is not None else "the usual one"
            notes.append(f"no short-axis stack in the study: the heart's axis is {source}")
        if view in ("2ch", "3ch", "4ch"):
            missed = _distance_mm(planes, views, index, used)
            if missed is not None and missed > MISS_MM:
                kind = ": probably the two-chamber view of the right ventricle" if view == "2ch" else ""
                notes.append(
                    f"it stands like a {view} view but passes {missed:.0f} mm {OFF_AXIS}, on which the other planes "
                    f"agree{kind}"
                )
        named.append((view, tuple(notes)))
    return named


def _distance_mm(planes: Sequence[Plane], views: Sequence[str], index: int, axis: Vector) -> float | None:
    """Distance of a plane from the axis on which the other long-axis planes agree; None when they do not."""
    others = [plane for k, plane in enumerate(planes) if k != index and views[k] in ("2ch", "3ch", "4ch")]
    if len(others) < 3:
        return None  # two planes always meet somewhere: nothing would confirm it
    depth = float(np.median([plane.center @ axis for plane in planes]))
    lines = [_cut(plane, axis, depth) for plane in others]
    best: tuple[float, Vector] | None = None
    for (n1, d1), (n2, d2) in combinations(lines, 2):
        matrix = np.array([n1, n2])
        if abs(float(np.linalg.det(matrix))) < np.sin(np.radians(APART_DEG)):
            continue
        point = np.linalg.solve(matrix, [d1, d2])
        spread = float(np.median([abs(n @ point - d) for n, d in lines]))
        worst = float(np.sort([abs(n @ point - d) for n, d in lines])[2])
        score = max(spread, worst)
        if best is None or score < best[0]:
            best = score, point
    if best is None or best[0] > AGREE_MM:
        return None
    normal, offset = _cut(planes[index], axis, depth)
    return abs(float(normal @ best[1] - offset))


def _cut(plane: Plane, axis: Vector, depth: float) -> tuple[Vector, float]:
    """Line (unit normal (2,), offset [mm]) in which a plane cuts the short-axis plane at a depth [mm] on the axis."""
    right = np.cross(axis, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    across = np.array([right, np.cross(axis, right)]) @ plane.normal
    length = float(np.linalg.norm(across))
    offset = float(plane.normal @ plane.center) - depth * float(plane.normal @ axis)
    return across / length, offset / length
