"""Evaluation: predictions tables, metrics, subject bootstrap, probes, retrieval, calibration, audit, results.

Every metric, interval, calibration and audit reads one table (see `predictions`) and nothing else. Names below are
imported when they are first used, so that reading results does not import torch or scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "audit": ("audit_groups", "audit_metrics"),
    "bootstrap": (
        "Bootstrapped",
        "Interval",
        "SubjectDraws",
        "bootstrap_metrics",
        "draw_subjects",
        "paired_difference",
    ),
    "calibration": ("Calibration", "calibrate_binary", "calibrate_regression", "reliability_curve"),
    "cox": ("CoxFit", "fit_cox"),
    "decision": ("decision_curve", "net_benefits"),
    "embeddings": ("Embeddings", "embed", "encoder_of"),
    "evaluate": ("evaluate_weights",),
    "evaluated": ("Evaluated", "headline_table", "read_evaluation"),
    "incident": ("predict_incident",),
    "kaplan_meier": ("Strata", "add_cox_probabilities", "breslow", "logrank", "predicted_strata"),
    "label_draws": ("LabelDraw", "draw_labels"),
    "metrics": ("METRICS", "Metric", "choose_threshold", "compute", "metrics_for", "threshold_at_specificity"),
    "predictions": ("check_predictions", "make_predictions", "read_predictions", "write_predictions"),
    "probes": ("LogisticProbe", "RidgeProbe"),
    "results": ("ROW_KEYS", "make_row", "read_results", "write_results"),
    "retrieval": ("Retrieval", "retrieve", "retrieve_both_ways"),
    "scores": ("ArmKey", "Score", "difference", "rows", "score_predictions", "score_retrieval"),
    "survival": (
        "Survival",
        "bootstrap_survival",
        "make_survival_predictions",
        "score_survival",
        "survival_rows",
    ),
}
_WHERE = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
