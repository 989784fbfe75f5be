"""One self-contained HTML page: no script, no font and no image from outside, written atomically."""

from __future__ import annotations

import base64
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ecgcmr.drawing.svg import UNIQUE
from ecgcmr.report.palette import DARK, ArmStyle, swatch

MAX_BYTES = 5_000_000
DISCLAIMER = (
    "Research software, not a medical device. Numbers from the simulated cohort come from a test bench whose truth is "
    "known; they are not evidence about patients."
)
_RIM = 0.02  # white around a figure in a file of its own, as a part of its width
Size = Literal["panel", "half", "wide"]
_PAGE_PATH = r"(?:[\w-]+/)*[\w-]+\.html"


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        content: SVG markup, or the bytes of a PNG.
        alt: What the figure shows, for readers who can not see it.
        caption: Text below the figure.
        size: `panel` (three in a row on a wide screen), `half`, or `wide` (a row of its own that scrolls in its box
            on a narrow screen instead of shrinking until nothing can be read).
        title: Short title above the figure.
    """

    content: str | bytes = field(repr=False)
    alt: str
    caption: str = ""
    size: Size = "panel"
    title: str = ""

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError(f"figure {self.title or self.caption[:40]!r} has no alt text; every figure needs one")
        if isinstance(self.content, str) and not self.content.lstrip().startswith("<svg"):
            raise ValueError(f"figure {self.alt[:40]!r}: text content must be SVG markup")
        if isinstance(self.content, bytes) and not self.content.startswith(b"\x89PNG"):
            raise ValueError(f"figure {self.alt[:40]!r}: bytes must be a PNG image")

    def markup(self, ids: str = "f0") -> str:
        """SVG markup whose element ids begin with `ids`, which must differ between the figures of a page.

        Raises:
            ValueError: The figure is a PNG.
        """
        if isinstance(self.content, bytes):
            raise ValueError(f"figure {self.alt[:40]!r} is a PNG, not SVG")
        return self.content.replace(UNIQUE, ids)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the figure to a file of its own: .svg on white paper, or .png, as its content is.

        Raises:
            ValueError: The suffix is not that of the content; names it.
        """
        out, suffix = Path(path), ".svg" if isinstance(self.content, str) else ".png"
        if out.suffix != suffix:
            raise ValueError(f"{out}: this figure is written as {suffix}")
        data = self.content if isinstance(self.content, bytes) else _on_paper(self.markup()).encode()
        partial = out.with_name(f".{out.name}.partial")
        partial.write_bytes(data)
        partial.replace(out)
        return out

    def _repr_svg_(self) -> str | None:
        """What a notebook draws; on white, because a notebook may be dark."""
        return _on_paper(self.markup(f"n{uuid.uuid4().hex[:8]}")) if isinstance(self.content, str) else None

    def _repr_png_(self) -> bytes | None:
        """What a notebook draws of a PNG."""
        return self.content if isinstance(self.content, bytes) else None


@dataclass(frozen=True)
class Table:
    """A table that scrolls in its own box when it is too wide.

    Attributes:
        columns: Names of the columns; no head is drawn when all are empty.
        rows: Cells.
        caption: Text above.
        fold: Whether it is hidden behind a line that opens it.
        prose: Whether cells hold sentences, which wrap, and not numbers, which do not.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    fold: bool = False
    prose: bool = False

    def __post_init__(self) -> None:
        wrong = [i for i, row in enumerate(self.rows) if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"table {self.caption!r}: row {wrong[0]} has not {len(self.columns)} cells")


@dataclass(frozen=True)
class LegendEntry:
    """An entry of a legend: the name of an arm and its style."""

    label: str
    style: ArmStyle


@dataclass(frozen=True)
class PageLink:
    """A link to another page that lies in the same folder or below it: the only link that may leave a page.

    Attributes:
        path: Relative path of the page, with slashes; it goes down only, so that a copied folder stays whole.
        label: Text of the link.
    """

    path: str
    label: str

    def __post_init__(self) -> None:
        if not re.fullmatch(_PAGE_PATH, self.path):
            raise ValueError(
                f"link to {self.path!r}: expected the relative path of a page below, such as evaluation/report.html "
                "(letters, digits, - and _)"
            )
        if not self.label.strip():
            raise ValueError(f"link to {self.path!r} has no text")


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        title: Heading.
        text: Paragraphs separated by empty lines; `code` in backticks.
        figures: Figures, in a grid.
        tables: Tables below the figures.
        legend: Styles of the arms in these figures.
        code: Commands, as a block that scrolls in its box.
        pages: Links to pages that belong to this one, below the text.
    """

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    legend: Sequence[LegendEntry] = ()
    code: str = ""
    pages: Sequence[PageLink] = ()


@dataclass(frozen=True)
class Headline:
    """A result for the top of the page: a number, what it is, and one line of detail (the interval)."""

    value: str
    label: str
    detail: str = ""


@dataclass
class _Page:
    title: str
    intro: str
    sections: Sequence[Section]
    facts: Mapping[str, object]
    headlines: Sequence[Headline]
    disclaimer: str = field(default=DISCLAIMER)


def build_report(
    out_path: str | os.PathLike[str],
    title: str,
    intro: str,
    sections: Sequence[Section],
    facts: Mapping[str, object] | None = None,
    headlines: Sequence[Headline] = (),
    disclaimer: str = DISCLAIMER,
) -> Path:
    """Write the page.

    Args:
        out_path: Where to write; the old page stays until the new one is complete.
        title: Title of the page.
        intro: Paragraphs under the title.
        sections: Sections in order.
        facts: What was run (subjects, seeds, version, time), as a list at the end.
        headlines: Results at the top, two to four.
        disclaimer: What the page is not, said once under the headlines.

    Returns:
        The path.

    Raises:
        ValueError: When the page would be larger than `MAX_BYTES` or would load something from outside.
    """
    path = Path(out_path)
    html = report_html(title, intro, sections, facts, headlines, disclaimer, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def report_html(
    title: str,
    intro: str,
    sections: Sequence[Section],
    facts: Mapping[str, object] | None = None,
    headlines: Sequence[Headline] = (),
    disclaimer: str = DISCLAIMER,
    name: str = "the page",
) -> str:
    """Make the page without writing it; arguments and errors as `build_report`, `name` for messages."""
    html = render_page(_Page(title, intro, sections, facts or {}, headlines, disclaimer))
    size = len(html.encode("utf-8"))
    if size > MAX_BYTES:
        raise ValueError(
            f"{name} would have {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f} MB; use fewer figures"
        )
    # A link to a page below loads nothing until the reader follows it, and then a file of the same folder.
    loads = re.sub(rf'<a class="page" href="{_PAGE_PATH}">', "", html)
    outside = re.search(r"<(?:script|link|iframe)\b|\b(?:src|href)=[\"'](?!data:image/|#)|url\((?!#)", loads)
    if outside:
        raise ValueError(f"{name} would load from outside: ...{loads[outside.start() : outside.start() + 60]}...")
    return html


def render_page(page: _Page) -> str:
    """The HTML of a page."""
    environment = Environment(
        loader=PackageLoader("ecgcmr.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    counter = iter(range(1, 1_000_000))
    environment.filters["paragraphs"] = paragraphs
    environment.filters["anchor"] = anchor
    environment.filters["swatch"] = lambda style: Markup(swatch(style))
    environment.filters["drawing"] = lambda figure: _drawing(figure, next(counter))
    return environment.get_template("report.html.j2").render(page=page, dark_colors=DARK)


def paragraphs(text: str) -> Markup:
    """Escaped paragraphs, split at empty lines; text between backticks becomes code."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]
    marked = [re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(block, quote=False)) for block in blocks]
    return Markup("".join(f"<p>{block}</p>" for block in marked))


def anchor(title: str) -> str:
    """A title as the target of a link within the page."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _on_paper(markup: str) -> str:
    """SVG markup on white, with a rim of white."""
    head, rest = markup.split(">", 1)
    width, height = (float(word) for word in head.split('viewBox="0 0 ')[1].split('"')[0].split())
    rim = _RIM * width
    box = f'viewBox="{-rim:.5g} {-rim:.5g} {width + 2 * rim:.5g} {height + 2 * rim:.5g}"'
    head = re.sub(r'viewBox="[^"]*"', box, head)
    return f'{head}><rect x="{-rim:.5g}" y="{-rim:.5g}" width="100%" height="100%" fill="#fff"/>{rest}\n'


def _drawing(figure: Figure, index: int) -> Markup:
    if isinstance(figure.content, str):
        return Markup(figure.markup(f"f{index}"))
    data = base64.b64encode(figure.content).decode("ascii")
    return Markup(f'<img alt="{escape(figure.alt, quote=True)}" src="data:image/png;base64,{data}">')
