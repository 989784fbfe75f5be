"""Results of an evaluation: headlines, forest plots of the arms, added value, tables of all numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ecgcmr.evaluation.evaluated import Evaluated
from ecgcmr.evaluation.macro import MACRO
from ecgcmr.evaluation.metrics import METRICS
from ecgcmr.evaluation.results import DIFFERENCE
from ecgcmr.evaluation.target_scores import PRIMARY
from ecgcmr.report.differences import DifferenceRow, difference_figure, interval_text
from ecgcmr.report.evaluation_text import ADDED, NUMBERS, RESULTS, flags_table
from ecgcmr.report.forest import Estimate, ForestRow, forest_figure
from ecgcmr.report.page import Figure, Headline, LegendEntry, Section, Table
from ecgcmr.report.palette import ArmStyle
from ecgcmr.report.sections import metric_label

KIND_NAMES = {"regression": "Measurements", "binary": "Diagnoses", "survival": "Incident outcomes"}
REFERENCE = {"auroc": 0.5, "harrell_c": 0.5, "r2": 0.0}
FLOOR = {"r2": -0.5}
PER_FIGURE, MOST = 10, 40
MAIN = {
    "regression": ("r2", "pearson_r", "mae", "bias"),
    "binary": ("auroc", "auprc", "brier", "calibration_slope", "observed_expected", "sensitivity_at_spec90"),
    "survival": ("harrell_c", "uno_c", "ipa"),
}
_STYLES = {
    "model": ArmStyle("#0a5ea8", "circle"),
    "covariates": ArmStyle("#6b7280", "square", "2 3"),
    "both": ArmStyle("#00795a", "diamond", "9 3 2 3"),
}


def arm_styles_of(found: Evaluated) -> dict[str, ArmStyle]:
    """Title of each arm -> its style, in the order of drawing."""
    return {found.about["arms"][arm]: _STYLES[arm] for arm in _STYLES if arm in found.about["arms"]}


def legend_of(found: Evaluated) -> list[LegendEntry]:
    """Legend of the arms."""
    return [LegendEntry(title, style) for title, style in arm_styles_of(found).items()]


def targets_of(found: Evaluated, kind: str) -> list[str]:
    """Names of the targets of a kind, in order."""
    return [target["name"] for target in found.about["targets"] if target["kind"] == kind]


def estimate(found: Evaluated, target: str, metric: str, arm: str, against: str | None = None) -> Estimate:
    """A number of results.json; NaN where it has none."""
    r = found.results
    part = r[(r["target"] == target) & (r["metric"] == metric) & (r["arm"] == arm)]
    part = part[part["compared_to"].isna() if against is None else part["compared_to"] == against]
    if part.empty:
        return Estimate(float("nan"), float("nan"), float("nan"))
    value, lo, hi = (float(part[key].iloc[0]) for key in ("value", "lo", "hi"))
    return Estimate(value, lo, hi)


def results_section(found: Evaluated) -> Section:
    """Forest plots of the first metric of each kind, and a table of the main metrics."""
    figures: list[Figure] = []
    tables: list[Table] = []
    cut = []
    styles = arm_styles_of(found)
    for kind, name in KIND_NAMES.items():
        targets = [t for t in targets_of(found, kind) if _has_value(found, t, PRIMARY[kind])]
        drawn = targets[:MOST]
        if len(targets) > MOST:
            cut.append(f"the first {MOST} of {len(targets)} {name.lower()}")
        if _has_value(found, MACRO, PRIMARY[kind]):
            drawn = [*drawn, MACRO]
        label = metric_label(PRIMARY[kind])
        for start in range(0, len(drawn), PER_FIGURE):
            rows = [_row(found, target, PRIMARY[kind], list(styles)) for target in drawn[start : start + PER_FIGURE]]
            more = f" ({start // PER_FIGURE + 1})" if len(drawn) > PER_FIGURE else ""
            figures.append(forest_figure(rows, styles, f"{name}: {label}{more}", label, REFERENCE[PRIMARY[kind]],
                                         FLOOR.get(PRIMARY[kind], float("-inf"))))  # fmt: skip
        if targets_of(found, kind):
            tables.append(_main_table(found, kind, name))
    text = (
        "Test subjects only; intervals are 95 %, by bootstrap of subjects. A dash is no number: the remarks say why."
        + (f" Drawn are {' and '.join(cut)}; the tables hold all." if cut else "")
    )
    flags = flags_table(found.about["flags"])
    return Section(RESULTS, text, figures, [*tables, *([flags] if flags else [])], legend_of(found))


def added_section(found: Evaluated) -> Section:
    """What the model adds to the covariates: paired differences by the same draws."""
    about, model, base, both = found.about, *(found.arm(name) for name in ("model", "covariates", "both"))
    if base is None:
        text = (
            "There is nothing to compare with: the cohort knows neither age, sex nor BMI of its subjects, or too few "
            "training subjects have labels. Whether the recording tells more than these is open."
        )
        return Section(ADDED, text)
    used = ", ".join(f"{name} (`{column}`)" for name, column in about["covariates"]["source"].items())
    if both is None:
        together = "A combination with the model could not be fitted on the validation subjects: see the remarks."
    else:
        together = f"`{both}` is a weighted sum of its prediction and that of the model, fitted on validation subjects."
    text = f"""`{base}` is a ridge, logistic or Cox regression on {used}, fitted on training subjects. {together}
Differences are paired: the same test subjects, the same draws. A filled point is a difference whose interval
excludes 0."""
    unknown = {name: n for name, n in about["covariates"]["missing_in_train"].items() if n}
    if unknown:
        listed = ", ".join(f"{name} of {n:,}" for name, n in unknown.items())
        text += f" Unknown among training subjects: {listed}; the mean stands in, and a column says so."
    figures = []
    pairs = [(both, base, "added value"), (model, base, "the recording alone")]
    for first, second, words in ((a, b, w) for a, b, w in pairs if a is not None):
        for kind, metric in PRIMARY.items():
            rows = _difference_rows(found, kind, metric, (str(first), str(second)))
            for start in range(0, len(rows), PER_FIGURE + 5):
                figures.append(
                    difference_figure(
                        rows[start : start + PER_FIGURE + 5],
                        f"{first} minus {second}: {metric_label(metric)} ({words})",
                        f"difference of {metric_label(metric)}",
                    )
                )
    weights = [
        [target, f"{stack['covariates']:.2f}", f"{stack['model']:.2f}"] for target, stack in about["stacks"].items()
    ]
    tables = []
    if weights:
        caption = "Weights of the combination (values, log-odds or log hazards)"
        tables.append(Table(["Target", str(base), str(model)], weights, caption, fold=True))
    return Section(ADDED, text, figures, tables)


def headlines(found: Evaluated) -> list[Headline]:
    """Up to four cards: the added value for the macro mean or the first targets of each kind."""
    base, both = found.arm("covariates"), found.arm("both")
    cards = []
    for kind, metric in PRIMARY.items():
        targets = targets_of(found, kind)
        for target in [*([MACRO] if _has_value(found, MACRO, metric) else []), *targets][: 2 if len(targets) else 0]:
            if base is not None and both is not None:
                one = estimate(found, target, metric + DIFFERENCE, both, base)
                if pd.notna(one.value):
                    cards.append(_added_card(_name(found, target, metric, targets), metric, one, (both, base)))
                    continue
            one = estimate(found, target, metric, str(found.arm("model")))
            if pd.notna(one.value):
                value, interval = one.text().split(" ", 1)
                name = _name(found, target, metric, targets)
                cards.append(Headline(f"{value} {metric_label(metric)}", name, f"95 % interval {interval}"))
    return cards[:4]


def numbers_section(found: Evaluated) -> Section:
    """Everything that stands in results.json, folded, and the thresholds."""
    tables = []
    for kind, name in KIND_NAMES.items():
        targets = [*targets_of(found, kind)]
        r = found.results
        part = r[r["target"].isin(targets)]
        if part.empty:
            continue
        rows = []
        for key, group in part.groupby(["target", "metric", "arm", part["compared_to"].fillna("")], sort=False):
            target, metric, arm, other = map(str, key)
            text = _text(metric, group)
            label = metric_label(metric) + (" (difference)" if other else "")
            rows.append([target, label, f"{arm} − {other}" if other else arm, text, str(group["n_subjects"].iloc[0])])
        head = ["Target", "Metric", "Arm", "Value [95 % interval]", "Subjects"]
        tables.append(Table(head, rows, f"{name}: {len(rows):,} numbers", fold=True))
    cuts = [
        [target, arm, f"{rules['balanced']:.4g}", f"{rules['specificity']:.4g}"]
        for arm, targets in found.about["thresholds"].items()
        for target, rules in targets.items()
        if rules
    ]
    if cuts:
        head = ["Target", "Arm", "Largest balanced accuracy", "Specificity of 90 %"]
        tables.append(Table(head, cuts, "Thresholds, chosen on validation subjects", fold=True))
    return Section(NUMBERS, "The same as in `results.json`.", tables=tables)


def _has_value(found: Evaluated, target: str, metric: str) -> bool:
    r = found.results
    return bool(r[(r["target"] == target) & (r["metric"] == metric)]["value"].notna().any())


def _row(found: Evaluated, target: str, metric: str, arms: Sequence[str]) -> ForestRow:
    label = "mean" if target == MACRO else target
    return ForestRow(label, {arm: estimate(found, target, metric, arm) for arm in arms})


def _difference_rows(found: Evaluated, kind: str, metric: str, pair: tuple[str, str]) -> list[DifferenceRow]:
    lower = metric in METRICS and METRICS[metric].better == "lower"
    rows = []
    for target in [*targets_of(found, kind)[:MOST], MACRO]:
        one = estimate(found, target, metric + DIFFERENCE, *pair)
        if pd.notna(one.value):
            label = "mean" if target == MACRO else target
            rows.append(DifferenceRow(label[:20], one.value, one.lo, one.hi, lower_is_better=lower))
    return rows


def _main_table(found: Evaluated, kind: str, name: str) -> Table:
    metrics = list(MAIN[kind])
    if kind == "survival":
        have = found.results[found.results["target"].isin(targets_of(found, kind))]["metric"].unique()
        metrics += [m for m in have if m.startswith(("auc_at_", "observed_expected_at_")) and DIFFERENCE not in m]
    rows = []
    for target in targets_of(found, kind):
        for arm in arm_styles_of(found):
            cells = [_text(metric, _rows(found, target, metric, arm)) for metric in metrics]
            if any(cell != "–" for cell in cells) or arm == found.arm("model"):
                rows.append([target, arm, *cells])
    caption = f"{name}: main metrics [95 % interval]"
    return Table(["Target", "Arm", *map(metric_label, metrics)], rows, caption, fold=len(rows) > 36)


def _rows(found: Evaluated, target: str, metric: str, arm: str) -> pd.DataFrame:
    r = found.results
    return r[(r["target"] == target) & (r["metric"] == metric) & (r["arm"] == arm) & r["compared_to"].isna()]


def _text(metric: str, rows: pd.DataFrame) -> str:
    if rows.empty:
        return "–"
    value, lo, hi = (float(rows[key].iloc[0]) for key in ("value", "lo", "hi"))
    small = metric.removesuffix(DIFFERENCE).startswith(("brier", "ibs", "ipa", "ece"))
    return Estimate(value, lo, hi).text(3 if small else 2)


def _added_card(name: str, metric: str, one: Estimate, pair: tuple[str, str]) -> Headline:
    row = DifferenceRow(name, one.value, one.lo, one.hi)
    words = {"better": f"{pair[0]} beats {pair[1]}", "worse": f"{pair[0]} is worse than {pair[1]}"}
    label = words.get(row.verdict, f"no clear difference of {pair[0]} and {pair[1]}")
    value, interval = interval_text(row).split(" ", 1)
    return Headline(f"{value} {metric_label(metric)}", f"{name}: {label}", f"added value, 95 % interval {interval}")


def _name(found: Evaluated, target: str, metric: str, targets: Sequence[str]) -> str:
    """Name of a target; for the mean the number of targets that all arms have a value of."""
    if target != MACRO:
        return target
    arms = list(arm_styles_of(found))
    n = sum(all(pd.notna(estimate(found, one, metric, arm).value) for arm in arms) for one in targets)
    return f"mean of {n} targets"
