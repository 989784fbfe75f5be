"""Position codes: the fixed 2-D sin-cos table of the ECG grid and its interpolation to other input lengths."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sincos_codes(positions: Tensor, width: int) -> Tensor:
    """Code scalar positions by sines and cosines of geometric frequencies (arXiv 1706.03762).

    Args:
        positions: Positions (...,), in any unit.
        width: Length of a code, even; the first half holds the sines, the second the cosines, with the
            frequencies 10000^(-i / (width / 2)).

    Returns:
        (..., width) float64.
    """
    half = width // 2
    omega = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device=positions.device) / half)
    angle = positions.double()[..., None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def sincos_table(leads: int, windows: int, width: int) -> Tensor:
    """Build the fixed table of a grid of leads by time windows, the cls token first.

    Dimensions [0, D/2) code the window (time), [D/2, D) the lead: in this order the released reference models hold
    them, whatever their variable names say.

    Args:
        leads: Rows of the grid.
        windows: Patches of each lead.
        width: Token width D, a multiple of 4.

    Returns:
        (1, 1 + leads * windows, D) float32; row 0 (cls) is zero, row 1 + lead * windows + t is that patch.
    """
    time = sincos_codes(torch.arange(windows), width // 2)
    lead = sincos_codes(torch.arange(leads), width // 2)
    grid = torch.cat(
        [
            time[None].expand(leads, -1, -1),
            lead[:, None].expand(-1, windows, -1),
        ],
        dim=-1,
    )
    return torch.cat([torch.zeros(1, width, dtype=grid.dtype), grid.reshape(-1, width)])[None].float()


def interpolate_table(table: Tensor, leads: int, windows: int, prefix: int = 1) -> Tensor:
    """Resample a position table to another number of time windows: bicubic along the grid, the cls row kept.

    Args:
        table: (1, prefix + leads * W, D).
        leads: Rows of the grid.
        windows: Wanted patches of each lead.
        prefix: Rows before the grid: 1 for cls, 0 for none.

    Returns:
        (1, prefix + leads * windows, D); the table itself when the number already fits.

    Raises:
        ValueError: If the table does not hold a whole number of windows of each lead.
    """
    tokens, width = table.shape[1] - prefix, table.shape[2]
    if tokens % leads:
        raise ValueError(f"pos_embed has {tokens} patch rows, which is not a multiple of {leads} leads")
    if tokens == leads * windows:
        return table
    grid = table[:, prefix:].reshape(1, leads, tokens // leads, width).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(leads, windows), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :prefix], grid.permute(0, 2, 3, 1).reshape(1, -1, width)], dim=1)
