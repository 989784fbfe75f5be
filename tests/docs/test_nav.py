"""The site's navigation has every page once, and links lead to files and headings that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
GROUPS = ["Start", "Data", "Train", "Evaluate", "Use weights", "Operate", "About"]


def navigation() -> dict[str, list[str]]:
    """Group -> its pages, in order."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    return {name: [page for one in pages for page in one.values()] for group in nav for name, pages in group.items()}


def text_without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Names of headings, as GitHub and the site make them: lower case, without punctuation, with hyphens."""
    headings = re.findall(r"^#+ (.+)$", text_without_code(page), flags=re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


def test_navigation__has_every_page_once() -> None:
    groups = navigation()
    assert list(groups) == GROUPS
    pages = [page for group in groups.values() for page in group]
    assert sorted(pages) == sorted(page.name for page in DOCS.glob("*.md"))


def test_index__leads_to_every_page_in_the_order_of_the_navigation() -> None:
    text = (DOCS / "index.md").read_text()
    linked = list(dict.fromkeys(re.findall(r"\]\((\w+\.md)[)#]", text)))
    assert linked == [page for group in navigation().values() for page in group if page != "index.md"]
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == GROUPS
    assert set(re.findall(r"\]\((notebooks/[^)]+)\)", text)) == {
        f"notebooks/{path.name}" for path in (DOCS / "notebooks").glob("*.ipynb")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links__lead_to_files_and_headings(page: Path) -> None:
    for path, heading in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text_without_code(page)):
        if path.startswith(("http", "mailto")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}, which is not there"
        if page.parent == DOCS:
            assert target.is_relative_to(DOCS), f"{page.name} links to {path}, which the site does not have"
        if heading and target.suffix == ".md":
            assert heading in anchors(target), f"{page.name} links to #{heading}, which {target.name} does not have"
