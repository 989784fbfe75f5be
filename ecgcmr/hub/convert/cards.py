"""What the cards of converted weights share: provenance, use and limits, as published."""

from __future__ import annotations

from ecgcmr.hub.convert.registry import AUTO

UKB = (
    "participant-derived: UK Biobank (application 87802), 40,044 subjects with paired 12-lead ECG and CMR; weights as "
    "published in oetu/MMCL-ECG-CMR (arXiv 2308.05764)"
)
USE = (
    "Research on what an ECG tells about the heart that cardiac MRI sees. Third-party weights in the toolkit's format."
)
LIMITS = (
    "Third-party weights: they were trained elsewhere and converted by `ecgcmr weights convert`; their makers' "
    "license, terms of data access and citation apply. Performance outside the population, devices and protocols of "
    "their training data is unknown. Standard 12-lead ECGs at rest only."
)
IMAGE_LIMITS = (
    "Third-party weights: they were trained elsewhere and converted by `ecgcmr weights convert`; their makers' "
    "license, terms of data access and citation apply. The intensity range and the slice choice of the original's "
    "images are not published; performance outside UK Biobank's scanners and protocol is unknown."
)


def unknown_if_auto(provenance: str) -> str:
    """Give the provenance of an option; a checkpoint itself does not say what it was trained on."""
    if provenance != AUTO:
        return provenance
    return "unknown: the file does not say what data it was trained on; whoever converts it must know"
