"""Headings under which `ecgcmr --help` lists the commands, in the order of the work."""

from __future__ import annotations

START, DATA, TRAIN, USE, MACHINE = "Start", "Data", "Learn and compare", "Use a model", "Runs and machine"
