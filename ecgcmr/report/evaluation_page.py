"""The page of an evaluation: from the files that `evaluate_weights` wrote to one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecgcmr.evaluation.evaluate import REPORT
from ecgcmr.evaluation.evaluated import Evaluated, read_evaluation
from ecgcmr.report.audit_sections import audit_section
from ecgcmr.report.evaluation_figures import diagnosis_section, map_section, measurement_section, outcome_section
from ecgcmr.report.evaluation_results import (
    added_section,
    arm_styles_of,
    headlines,
    numbers_section,
    results_section,
)
from ecgcmr.report.evaluation_text import (
    FLOW,
    PLAIN,
    SIMULATED,
    TRIPOD,
    characteristics_table,
    counts_table,
    limits_section,
    run_section,
    tripod_section,
)
from ecgcmr.report.flow_figure import flow_figure
from ecgcmr.report.page import Section, build_report


def write_evaluation_report(out: str | Path, extra: Sequence[Section] = ()) -> Path:
    """Write OUT/report.html.

    Args:
        out: Folder of an evaluation.
        extra: Sections that stand before the group audit, such as explanations and similar hearts.

    Returns:
        The page.

    Raises:
        FileNotFoundError: No finished evaluation is there.
        ValueError: One of its files is broken, or the page would be too large.
    """
    found = read_evaluation(out)
    sections = [run_section(found.about), _flow_section(found), results_section(found), added_section(found)]
    made = (measurement_section(found), diagnosis_section(found), outcome_section(found), map_section(found))
    sections += [section for section in made if section is not None]
    sections += [*extra, audit_section(found.audit, found.about, next(iter(arm_styles_of(found).values())))]
    sections += [limits_section(found.about), numbers_section(found)]
    titles = [section.title for section in sections]
    sections.insert(-1, tripod_section(found.about, titles))
    about = found.about
    facts = {name: str(version) for name, version in about["versions"].items()}
    facts |= {"weights": about["weights"]["sha256"], "embeddings": about["embeddings_fingerprint"][:16]}
    assert TRIPOD not in titles, "the item table lists the other sections"
    simulated = about["cohort"]["provenance"] == "simulated"
    return build_report(
        found.folder / REPORT,
        _title(found),
        _intro(found),
        sections,
        facts,
        headlines(found),
        SIMULATED if simulated else PLAIN,
    )


def _flow_section(found: Evaluated) -> Section:
    about = found.about
    tables = [characteristics_table(about), counts_table(about["targets"])]
    text = (
        "From the files to the test subjects. Rows without an observed label are left out for each target alone and "
        "never counted as zero."
    )
    return Section(FLOW, text, [flow_figure(about["flow"])], tables)


def _title(found: Evaluated) -> str:
    about = found.about
    names = [target["name"] for target in about["targets"]]
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{listed} from the {about['modality'].upper()}: {about['weights']['name']} on {about['cohort']['name']}"


def _intro(found: Evaluated) -> str:
    about = found.about
    base = found.arm("covariates")
    n, total = about["test_subjects"], about["cohort"]["subjects"]
    beside = (
        f" Beside it stand {base} alone, and both together: what the recording adds to what is known without it is the "
        "number to look at."
        if base
        else ""
    )
    return (
        f"How well the model `{about['weights']['name']}` predicts {len(about['targets'])} target(s) in {n:,} held-out "
        f"test subjects of {total:,} in the cohort `{about['cohort']['name']}`.{beside}"
    )
