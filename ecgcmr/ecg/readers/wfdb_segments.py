"""WFDB records of several segments: a header that lists records, which are read one by one and joined.

Grammar: https://physionet.org/physiotools/wag/header-5.htm, "Segment specification lines".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecgcmr.ecg.readers.limits import MAX_LEADS, MAX_SIGNAL_BYTES
from ecgcmr.ecg.readers.wfdb_header import SegmentedHeader
from ecgcmr.ecg.recording import EcgRecording

MAX_SEGMENTS = 10_000


def join_segments(header: SegmentedHeader, read: Callable[[Path], EcgRecording]) -> EcgRecording:
    """Read the segments of a record and join them over time.

    A segment named `~` is a gap, and a first segment of length 0 the layout of a record whose leads change. Leads are
    joined by name; where a segment lacks one, its samples are NaN.

    Args:
        header: The list of segments.
        read: Reads one segment by the path of its header, without a check of its amplitude.

    Raises:
        FileNotFoundError: A segment is missing.
        ValueError: A segment differs in rate, is shorter than announced, or all together are too long.
    """
    if len(header.segments) > MAX_SEGMENTS:
        raise ValueError(f"WFDB header {header.path} lists {len(header.segments)} segments, more than {MAX_SEGMENTS}")
    total = sum(length for _, length in header.segments)
    if total == 0 or total * 4 > MAX_SIGNAL_BYTES:
        raise ValueError(f"WFDB header {header.path}: its segments have {total} samples, which cannot be read at once")
    names: list[str] = []
    pieces: list[tuple[int, EcgRecording]] = []
    at = 0
    for name, length in header.segments:
        if name != "~" and length > 0:
            beside = header.path.with_name(f"{name}.hea")
            if not beside.is_file():
                raise FileNotFoundError(f"{header.path} lists the segment {name}: no WFDB header {beside}")
            piece = read(beside)
            if piece.n_samples != length:
                raise ValueError(
                    f"WFDB header {header.path} announces {length} samples of segment {name}, which has "
                    f"{piece.n_samples}: truncated"
                )
            if piece.rate_hz != header.rate_hz:
                raise ValueError(
                    f"WFDB header {header.path} is at {header.rate_hz:g} Hz, its segment {name} at {piece.rate_hz:g} Hz"
                )
            if len(set(piece.leads)) != len(piece.leads):
                raise ValueError(f"WFDB header {header.path}: a lead occurs twice in segment {name}")
            names += [lead for lead in piece.leads if lead not in names]
            pieces.append((at, piece))
        at += length
    if not pieces:
        raise ValueError(f"WFDB header {header.path} lists gaps only; it holds no sample")
    if len(names) > MAX_LEADS or len(names) * total * 4 > MAX_SIGNAL_BYTES:
        raise ValueError(f"WFDB header {header.path}: {len(names)} leads of {total} samples cannot be read at once")
    samples = np.full((len(names), total), np.nan, np.float32)
    for start, piece in pieces:
        for row, lead in enumerate(piece.leads):
            samples[names.index(lead), start : start + piece.n_samples] = piece.samples[row]
    gaps = at - sum(piece.n_samples for _, piece in pieces)
    notes = [f"joined of {len(pieces)} segments"] + ([f"{gaps / header.rate_hz:.3g} s are gaps"] if gaps else [])
    first = pieces[0][1]
    return replace(first, samples=samples, leads=tuple(names), notes=tuple(notes), recorded_at=header.recorded_at)
