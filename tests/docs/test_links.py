"""Links of the documentation lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, name_of


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for address, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]+))?\)", page.read_text()):
        if address.startswith("http"):
            continue
        target = page.parent / address if address else page
        assert target.exists(), f"{address} in {page.name}"
        assert not anchor or anchor in anchors(target), f"{address}#{anchor} in {page.name}"


def test_pages_that_code_names_are_there() -> None:
    for folder in ("condswin", "pipelines", "components", "infra", "tests"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in {".py", ".yaml"}:
                for named in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text()):
                    assert (ROOT / named).exists(), f"{named} in {path.relative_to(ROOT)}"
