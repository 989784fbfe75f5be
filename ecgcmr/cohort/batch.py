"""Batch: what a dataset gives and an objective takes."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """One batch; a missing modality is a mask and never a missing key, so that all ranks run the same graph.

    Legend: B batch, L leads, T samples, C channels (chosen frames of chosen slices), H rows, W columns, K labels, N
    features of tabular inputs, of which a run may have none.
    """

    ecg: Tensor  # (B, L, T) float32, prepared by the ECG pipeline
    cmr: Tensor  # (B, C, H, W) or (B, V, F, H, W) float32 in [0, 1], prepared by the CMR pipeline
    has_ecg: Tensor  # (B,) bool
    has_cmr: Tensor  # (B,) bool
    subject: Tensor  # (B,) int64, pseudonymous subject index
    labels: Tensor  # (B, K) float32; 0 where missing
    label_mask: Tensor  # (B, K) bool; True where observed
    group: Tensor  # (B,) int64
    tabular: Tensor  # (B, N) float32, standardized; 0 where missing
    tabular_mask: Tensor  # (B, N) bool; True where known
