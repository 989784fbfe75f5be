"""XLI, the compression of Philips Sierra ECG files: LZW with 10-bit codes over second differences.

Public description: https://github.com/sixlettervariables/sierra-ecg-tools/wiki. Each lead is one chunk: an 8-byte
header (length of the compressed data, the constant 1, the first delta), then LZW codes of 10 bits, most significant
bit first. What comes out is all high bytes and then all low bytes of 16-bit deltas.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS

_CODE_BITS = 10
_HEADER = struct.Struct("<ihh")
_BIAS = 64


def decode_xli(data: bytes, n_leads: int, n_samples: int) -> NDArray[np.int64]:
    """Decompress the chunks of all leads.

    Args:
        data: Chunks, one after the other.
        n_leads: Number of leads.
        n_samples: Samples of each lead, T.

    Returns:
        Digital values (L, T) before the limb leads are restored.

    Raises:
        ValueError: The data end early, or a chunk is damaged (named by its number).
    """
    out = np.empty((n_leads, n_samples), np.int64)
    offset = 0
    for row in range(n_leads):
        if offset + _HEADER.size > len(data):
            raise ValueError(f"the compressed data hold {row} leads, expected {n_leads}: truncated")
        size, constant, first = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        if size <= 0 or constant != 1:
            raise ValueError(f"the chunk of lead {row + 1} has a damaged header (size {size}, mark {constant})")
        if offset + size > len(data):
            raise ValueError(f"the chunk of lead {row + 1} is truncated: {len(data) - offset} of {size} bytes")
        raw = _lzw(data[offset : offset + size], 2 * n_samples)
        if len(raw) < 2 * n_samples:
            raise ValueError(f"the chunk of lead {row + 1} is truncated: {len(raw) // 2} of {n_samples} samples")
        split = np.frombuffer(raw, np.uint8)[: 2 * n_samples].reshape(2, n_samples).astype(np.uint16)
        out[row] = _undo_deltas(((split[0] << 8) | split[1]).astype(np.int16), first)
        offset += size
    return out


def _lzw(data: bytes, wanted: int) -> bytes:
    """Return at least `wanted` decompressed bytes, or what there is.

    Codes below 256 are bytes; each code read adds an entry until the table of 1,024 is full.
    """
    entries = [bytes([i]) for i in range(256)]
    out = bytearray()
    previous = b""
    buffer = bits = 0
    for byte in data:
        buffer = ((buffer << 8) | byte) & 0x3FFFF
        bits += 8
        if bits < _CODE_BITS:
            continue
        bits -= _CODE_BITS
        code = (buffer >> bits) & 0x3FF
        if code < len(entries):
            entry = entries[code]
        elif code == len(entries) and previous:
            entry = previous + previous[:1]
        else:
            raise ValueError(f"the compressed data are damaged (code {code} of {len(entries)})")
        out += entry
        if previous and len(entries) < 1 << _CODE_BITS:
            entries.append(previous + entry[:1])
        previous = entry
        if len(out) >= wanted:
            break
    return bytes(out)


def _undo_deltas(codes_T: NDArray[np.int16], first: int) -> NDArray[np.int64]:
    """Sum second differences: z = 2 y - x - previous code, where codes after the first are biased by 64."""
    codes = codes_T.astype(np.int64)
    if codes.size < 3:
        return codes
    # z[i] - 2 z[i-1] + z[i-2] = -c[i], with c[2] = first and c[i] = code[i-1] - 64 from then on
    second = np.concatenate([[first], codes[2:-1] - _BIAS])
    slope = (codes[1] - codes[0]) - np.cumsum(second)
    return np.concatenate([codes[:2], codes[1] + np.cumsum(slope)])


def restore_limb_leads(digital_LT: NDArray[np.int64]) -> NDArray[np.float64]:
    """Turn stored leads in the order of `LEADS` (at least six) into the true ones.

    The file holds of III, aVR, aVL and aVF only how far they are from what follows from I and II.
    """
    x = digital_LT.astype(np.float64)
    i, ii, iii, avr, avl, avf = (x[LEADS.index(lead)].copy() for lead in LEADS[:6])
    x[2] = ii - i - iii
    x[3] = -avr - np.floor((i + ii) / 2)
    x[4] = np.floor((i - x[2]) / 2) - avl
    x[5] = np.floor((ii + x[2]) / 2) - avf
    return x
