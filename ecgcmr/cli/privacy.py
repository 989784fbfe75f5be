"""The command `cohort audit-privacy`. Parsing and printing only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ecgcmr.cli.errors import plain_console, user_errors


def register(cohort_app: typer.Typer) -> None:
    """Give the cohort commands the verb of this file."""
    cohort_app.command(name="audit-privacy")(audit_privacy)


def audit_privacy(
    folder: Annotated[Path, typer.Argument(help="A cohort, a run, a weights folder, or any folder to be shared.")],
    show: Annotated[int, typer.Option(min=1, help="Findings to print.")] = 50,
) -> None:
    """Look for what could identify a person; exit code 1 when something was found."""
    from ecgcmr.cohort.privacy_audit import scan

    with user_errors():
        report = scan(folder)
    console, found = plain_console(), report.findings
    for finding in found[:show]:
        console.print(str(finding), markup=False)
    if len(found) > show:
        console.print(f"... and {len(found) - show} more; see all of them with --show {len(found)}", markup=False)
    if report.skipped:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in report.skipped.items())
        console.print(f"not looked into: {listed}", markup=False)
    if found:
        where = len({finding.file for finding in found})
        console.print(f"{len(found)} findings in {where} of {report.files} files of {folder}", markup=False)
        raise typer.Exit(1)
    console.print(f"{folder}: {report.files} files, nothing that looks like an identifier", markup=False)
