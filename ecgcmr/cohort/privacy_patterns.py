"""What an identifier looks like in text, in numbers and in the names of columns."""

from __future__ import annotations

import re
from collections.abc import Iterator

# What looks like an identifier and is none is taken out first: decimals, hashes, counts with their unit.
_HARMLESS = re.compile(
    r"\b10\.\d{4,5}/\S+|\barXiv:? ?\S+|\b(?:PMID|PMC):? ?\d+|https?://(?:doi|arxiv|pubmed|www\.ncbi)\S+"  # papers
    r"|(?<![\d.])\d{1,6}\.\d+(?:[eE][+-]?\d+)?(?![\d.])"  # decimals; a whole number written as 1000000.0 stays
    r"|\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{12,}\b"  # hashes
    r"|\bdata:[\w/+-]+;base64,[\w+/=]+"  # pictures in a page
    r"|\b\d{7,}(?= ?(?:parameters|params|bytes|samples|tokens|values|elements|steps|flops|kB|MB|GB)\b)"
)

LOGGED_AT = re.compile(r"^\W?\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*")
"""When a line of a log was written: about the run, not about a person."""

_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_TAGS = (
    "PatientName|PatientID|PatientBirthDate|PatientAddress|OtherPatientIDs|OtherPatientNames|ReferringPhysicianName|"
    "OperatorsName|PerformingPhysicianName|AccessionNumber|PatientsName|PatientLastName|PatientFirstName|DateofBirth"
)

PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("UK Biobank file name", re.compile(r"(?<!\d)[1-9]\d{6}_2\d{4}_\d+_\d+(?!\d)")),
    ("e-mail address", re.compile(r"(?<![\w.+-])[\w.+-]+@[A-Za-z\d-]+(?:\.[A-Za-z\d-]+)*\.[A-Za-z]{2,}\b")),
    ("person's name", re.compile(r"(?<![A-Za-z-])[A-Za-z][A-Za-z'-]+\^[A-Za-z][A-Za-z' -]*(?:\^[A-Za-z' ]*)*")),
    ("identifying tag", re.compile(rf"\b(?:{_TAGS})\b[\"'>]*\s*[:=>]\s*[\"']?[^\s\"'<,}}]+", re.IGNORECASE)),
    (
        "medical record number",
        re.compile(
            r"\b(?:MRN|NHS|SSN|CHI|CPR|(?:patient|hospital|case|accession)[ _-]?(?:id|no|number|nr))"
            r"\b[\s\"':=#.-]{1,4}\w{0,20}\d{4,}\w{0,20}",
            re.IGNORECASE,
        ),
    ),
    ("social security number", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")),
    ("DICOM UID", re.compile(r"(?<![\w.])[0-2](?:\.(?:0|[1-9]\d*)){7,}(?![\d.])")),
    (
        "date",
        re.compile(
            rf"(?<![\d.-]){_YEAR}([-/.]){_MONTH}\1{_DAY}(?![\d-])|(?<![\d.-]){_DAY}([-/.]){_MONTH}\2{_YEAR}(?![\d-])"
            rf"|(?<!\d){_DAY}[ -](?:{_MONTHS})[a-z]*[ -]{_YEAR}(?!\d)"
            rf"|(?<!\d){_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{{4}}|\d{{6}})?(?!\d)",
            re.IGNORECASE,
        ),
    ),
    (
        "path of a person or machine",
        re.compile(r"(?<![\w.])/(?:home|Users|root|mnt|media|Volumes)/[\w.-]+|\b[A-Za-z]:\\Users\\[\w.-]+"),
    ),
    ("long number", re.compile(r"\d{7,}")),
)
"""Kinds and patterns; what an earlier one has matched is not offered to a later one."""

_QUICK = re.compile(
    r"\d{3}|@|\^|[A-Za-z]:\\|/(?:home|Users|root|mnt|media|Volumes)/|Patient|Physician|Operators|Accession|birth", re.I
)

_IDENTIFYING = (
    {"eid"}, {"mrn"}, {"ssn"}, {"nhs"}, {"dob"}, {"surname"}, {"forename"}, {"postcode"}, {"zipcode"}, {"email"},
    {"patientname"}, {"patientid"}, {"birthdate"}, {"lastname"}, {"firstname"}, {"patient", "id"}, {"patient", "name"},
    {"birth", "date"}, {"date", "birth"}, {"first", "name"}, {"last", "name"}, {"phone", "number"}, {"person", "id"},
    {"hospital", "number"}, {"accession", "number"}, {"participant", "id"},
)  # fmt: skip

# Words of names whose numbers count, measure or place something.
_COUNTING = {
    "offset", "offsets", "bytes", "elements", "size", "sizes", "parameters", "params", "samples", "steps", "step",
    "tokens", "seed", "seeds", "count", "counts", "total", "n", "numel", "flops", "time", "seconds", "length", "rows",
    "columns", "kb", "mb", "memory", "shape", "items", "state", "values", "position", "stored", "nanoseconds", "ns",
}  # fmt: skip


def looks_identifying(text: str) -> Iterator[tuple[str, str]]:
    """Yield kind and match for everything in a text that looks like an identifier."""
    if not _QUICK.search(text):
        return
    text = _HARMLESS.sub(lambda match: " " * len(match.group()), text)
    for kind, pattern in PATTERNS:
        found = [match.group() for match in pattern.finditer(text)]
        if found:
            yield from ((kind, match) for match in found)
            text = pattern.sub(lambda match: " " * len(match.group()), text)


def identifying_name(name: str) -> bool:
    """Whether a column, key or array is called like an identifier (`patient_id`, `DateOfBirth`, `eid`)."""
    words = _words(name)
    return any(wanted <= words for wanted in _IDENTIFYING)


def counts_something(name: str) -> bool:
    """Whether large whole numbers under this name are sizes, places or seeds rather than identifiers."""
    return bool(_words(name) & _COUNTING)


def _words(name: str) -> set[str]:
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return {word.lower() for word in re.split(r"[^A-Za-z]+", parts) if word}


def redact(text: str) -> str:
    """Keep the first and the last character of what was found, and at most twelve in all."""
    text = text.strip()
    return f"{text[0]}{'*' * min(max(len(text) - 2, 1), 10)}{text[-1]}" if text else ""


def redact_within(text: str) -> str:
    """Redact everything in a text that looks like an identifier, such as in the name of a file."""
    for _, match in looks_identifying(text):
        text = text.replace(match, redact(match))
    return text
