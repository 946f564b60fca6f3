"""The built documentation as its readers meet it: opened from disk, in Debian's Chromium."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, moved from where it was built."""
    folder = tmp_path_factory.mktemp("docs")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = ["mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder / "built")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return (folder / "built").rename(folder / "site")


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:
    """The open first page; whatever it complains of or asks for elsewhere fails the test."""
    troubles: list[str] = []
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        opened = context.new_page()
        opened.on("console", lambda message: troubles.append(message.text))
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        own = (f"{site.as_uri()}/", "data:", "blob:")
        opened.on("request", lambda asked: None if asked.url.startswith(own) else troubles.append(asked.url))
        opened.goto(f"{site.as_uri()}/index.html")
        yield opened
    assert not troubles


def pages(site: Path) -> list[Path]:
    return sorted(set(site.rglob("*.html")) - {site / "404.html"})


def test_every_page_opens_from_disk_in_silence_and_is_cut_at_no_width(page: Page, site: Path) -> None:
    for each in pages(site):
        page.goto(each.as_uri())
        assert page.locator("h1").first.is_visible(), each
        for width in (390, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            # Sidebars slide to their places first.
            page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width, timeout=10_000)


def test_diagrams_are_drawn(page: Page, site: Path) -> None:
    """Material puts them where no selector of the page reaches; until then their text stands in `pre.mermaid`."""
    for name, diagrams in (("index", 1), ("explanation/networks", 3)):
        page.goto(f"{site.as_uri()}/{name}.html")
        page.wait_for_function("document.querySelectorAll('div.mermaid').length > 0")
        assert page.locator("div.mermaid").count() == diagrams
        assert page.locator("pre.mermaid").count() == 0
        boxes = [each.bounding_box() for each in page.locator("div.mermaid").all()]
        assert all(box and box["height"] > 50 for box in boxes)


def test_search_finds_a_word_and_leads_there(page: Page) -> None:
    page.locator("[data-md-component=search-query]").fill("zero-filled")
    hit = page.locator(".md-search-result__link").first
    hit.wait_for()
    hit.click()
    page.wait_for_url("**/*.html*")
    assert "zero-filled" in page.locator("article").inner_text().lower()


def test_dark_is_the_system_s_wish_or_the_button_s(page: Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{colour} !== '{light}'")
    page.get_by_title("Light", exact=True).click()
    page.wait_for_function(f"{colour} === '{light}'")
