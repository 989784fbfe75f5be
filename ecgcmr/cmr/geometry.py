"""Where image planes lie in the body: affines, the long axis of the left ventricle, and which view a plane is.

Coordinates are DICOM's LPS (x to the left, y to the back, z to the head) inside this module; `Cine.affine` is RAS+.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# The usual way from base to apex: to the left, to the front and to the feet.
APEX_LPS: Vector = np.array([0.57, -0.63, -0.53]) / np.linalg.norm([0.57, -0.63, -0.53])
SHORT_AXIS_DEG = 40.0  # a plane whose normal is nearer to the long axis than this is a short-axis plane
SHORT_AXIS_NAMED_DEG = 55.0  # the same when the series is also named short axis
LONG_AXIS_TILT_DEG = 35.0  # a plane that holds the long axis within this angle is a long-axis plane
# Direction in which a plane cuts the short-axis plane, from the subject's left towards the front and the head.
LONG_AXIS_SECTORS = (("4ch", -35.0, 38.0), ("2ch", 38.0, 99.0), ("3ch", 99.0, 145.0))
SAGITTAL = 0.92  # |left component| of the normal of a right ventricular outflow plane: nearly sagittal
MARGIN_DEG, MARGIN_WITHOUT_SAX_DEG = 12.0, 25.0

_NAMES = (
    ("rvot", r"rvot|rv[ _-]*out"),
    ("sax", r"sax|short[ _-]*ax|(^|[ _-])sa([ _-]|$)|\bkurz"),
    ("2ch", r"2[ _-]*(ch|kam)|two[ _-]*ch|\bvla\b"),
    ("3ch", r"3[ _-]*(ch|kam)|three[ _-]*ch|lvot"),
    ("4ch", r"4[ _-]*(ch|kam)|four[ _-]*ch|\bhla\b"),
)


def plane_affine(
    origin: Vector, orientation: tuple[Vector, Vector], spacing_mm: tuple[float, float], step: Vector
) -> NDArray[np.float64]:
    """Affine (4, 4) from (column, row, slice, 1) to RAS+ [mm].

    Args:
        origin: Center of the first pixel of the first slice, LPS [mm].
        orientation: Unit vectors along which the column index and the row index grow, LPS.
        spacing_mm: (row, column) spacing [mm].
        step: From one slice to the next, LPS [mm].
    """
    affine = np.eye(4)
    affine[:3, 0] = orientation[0] * spacing_mm[1]
    affine[:3, 1] = orientation[1] * spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return np.asarray(LPS_TO_RAS @ affine)


def check_orientation(along_columns: Vector, along_rows: Vector, where: str) -> tuple[Vector, Vector]:
    """Give both direction cosines as exact unit vectors.

    Raises:
        ValueError: When they are not unit vectors at a right angle, within 1 %.
    """
    lengths = np.linalg.norm(along_columns), np.linalg.norm(along_rows)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(along_columns @ along_rows) > 0.01:
        raise ValueError(
            f"{where}: ImageOrientationPatient must be two unit vectors at a right angle, "
            f"got lengths {lengths[0]:.3f}, {lengths[1]:.3f} and cosine {along_columns @ along_rows:.3f}"
        )
    first = along_columns / lengths[0]
    second = along_rows - (along_rows @ first) * first
    return first, second / np.linalg.norm(second)


def angle_deg(a: Vector, b: Vector) -> float:
    """Angle between two lines (0 to 90) [deg]."""
    cosine = abs(float(a @ b)) / float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def named_view(description: str) -> str | None:
    """The view that a series description names, or None."""
    text = description.lower()
    for view, pattern in _NAMES:
        if re.search(pattern, text):
            return view
    return None


def is_short_axis(normal: Vector, description: str = "") -> bool:
    """Whether a plane with this normal (LPS) cuts the left ventricle across its long axis."""
    limit = SHORT_AXIS_NAMED_DEG if named_view(description) == "sax" else SHORT_AXIS_DEG
    return angle_deg(normal, APEX_LPS) <= limit


def towards_apex(normal: Vector) -> Vector:
    """Turn the normal (LPS) of a short-axis plane so that it points from base to apex: left, front, feet."""
    return normal if float(normal @ APEX_LPS) >= 0 else -normal


def long_axis_angle_deg(normal: Vector, axis: Vector) -> float:
    """Direction of the cut of a long-axis plane with the short-axis plane, in [-45, 135) [deg] modulo 180.

    0 points to the subject's left within the short-axis plane; positive angles turn to the front and the head.

    Args:
        normal: Normal of the long-axis plane, LPS.
        axis: Unit vector from base to apex, LPS.
    """
    left = np.array([1.0, 0.0, 0.0]) - axis[0] * axis
    left /= np.linalg.norm(left)
    up = np.cross(axis, left)
    cut = np.cross(normal, axis)
    return float((np.degrees(np.arctan2(cut @ up, cut @ left)) + 35.0) % 180.0 - 35.0)


def classify_long_axis(normal: Vector, axis: Vector | None, description: str = "") -> tuple[str, str | None]:
    """Tell the view of a plane that is not a short-axis plane.

    The plane's normal decides, by the direction in which the plane cuts the short-axis plane; nearly sagittal planes
    that stand off the long axis are right ventricular outflow views. The description is asked only within a margin of
    a border (12 degrees; 25 when the study has no short-axis stack and the usual long axis has to serve).

    Args:
        normal: Unit normal, LPS.
        axis: Unit vector from base to apex from the short-axis stack, LPS; None without one.
        description: Series description.

    Returns:
        The view, and a note when geometry and description disagree.
    """
    margin = MARGIN_DEG if axis is not None else MARGIN_WITHOUT_SAX_DEG
    used = APEX_LPS if axis is None else axis
    tilt = 90.0 - angle_deg(normal, used)
    angle = long_axis_angle_deg(normal, used)
    named = named_view(description)
    if tilt > LONG_AXIS_TILT_DEG:
        near = {named} if named and tilt < LONG_AXIS_TILT_DEG + margin else set()
        view = "other"
    else:
        view, near = _sector(angle, margin)
        if 60.0 <= angle <= 125.0 and abs(normal[0]) > SAGITTAL - 0.1:
            near.add("rvot")
            if abs(normal[0]) >= SAGITTAL and tilt >= 10.0:
                near, view = near | {view}, "rvot"
    if named and named != "sax" and named in near:
        view = named
    if named and named != view:
        place = f"cuts the short axis at {angle:.0f} deg, {tilt:.0f} deg off the long axis"
        return view, f"the series is named {named}, but by its geometry it is {view} ({place})"
    return view, None


def _sector(angle: float, margin: float) -> tuple[str, set[str]]:
    """The sector of a direction, and all sectors within the margin of it."""
    near, view = set(), "4ch"
    for name, first, last in LONG_AXIS_SECTORS:
        offset = min(abs((angle - edge + 90.0) % 180.0 - 90.0) for edge in (first, last))
        inside = first <= angle < last
        if inside:
            view = name
        if inside or offset <= margin:
            near.add(name)
    return view, near
