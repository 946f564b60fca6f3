"""The report as its readers meet it: opened from disk, in Debian's Chromium."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.reporting.pages import write

pytestmark = pytest.mark.browser

#: Widths from a telephone to a wall.
WIDTHS = (390, 820, 1440, 2560)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The open page; whatever it complains of or asks for elsewhere fails the test."""
    troubles: list[str] = []
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        opened = context.new_page()
        opened.on("console", lambda message: troubles.append(message.text))
        opened.on("pageerror", lambda error: troubles.append(str(error)))
        opened.on("request", lambda request: troubles.append(request.url) if not _own(request.url, report) else None)
        opened.goto(report.as_uri())
        yield opened
    assert not troubles


def _own(url: str, report: Path) -> bool:
    return url == report.as_uri() or url.startswith("data:")


def test_it_opens_from_disk_in_silence(page: Page) -> None:
    assert page.title() == "condswin report: reconstruction refused"
    assert page.locator(".verdict").first.is_visible()
    assert page.locator(".viewer").first.is_visible()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_at_any_width(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wider = "all => all.filter(each => each.scrollWidth > each.clientWidth + 1).length"
    assert page.locator(".frame").evaluate_all(wider) == 0


def test_columns_sort_both_ways_and_cells_without_a_value_stay_last(page: Page) -> None:
    table = page.locator("table", has=page.get_by_text("Test cases: means over patients")).first
    header = table.locator("thead th", has_text="psnr")
    values = "rows => rows.map(row => Number(row.cells[1].dataset.sort))"
    for order, sign in (("descending", -1), ("ascending", 1)):
        header.get_by_role("button").press("Enter")
        assert header.get_attribute("aria-sort") == order
        found = table.locator("tbody tr").evaluate_all(values)
        assert found == sorted(found, key=lambda value: sign * value)
    rules = page.locator("table", has=page.get_by_text("The gate: refused")).first
    for _ in range(2):
        rules.locator("thead button").nth(2).click()
        assert rules.locator("tbody tr").last.locator("th").inner_text() == "ssim at least 0.5"


def test_two_pictures_are_wiped_over_each_other(page: Page) -> None:
    case = page.locator(".case").first
    left, right = case.locator("[name=left]"), case.locator("[name=right]")
    assert left.locator("option:checked").inner_text() == "target"
    assert right.locator("option:checked").inner_text() == "unrolled-swin"
    over = case.locator("img.over")
    before = over.evaluate("each => getComputedStyle(each).clipPath")
    case.locator("[name=wipe]").fill("20")
    assert over.evaluate("each => getComputedStyle(each).clipPath") == "inset(0px 0px 0px 20%)" != before
    case.locator(".strip button").nth(3).press("Enter")
    assert right.locator("option:checked").inner_text() == "error of zero-filled"
    assert over.get_attribute("src") == case.locator(".strip img").nth(3).get_attribute("src")
    assert over.get_attribute("alt") == "error of zero-filled of case " + case.locator("h4").inner_text().split()[
        1] + ", slice 2 of 3"  # fmt: skip


def test_slices_change_in_all_pictures_of_a_case(page: Page) -> None:
    case, other = page.locator(".case").nth(0), page.locator(".case").nth(1)
    pictures = "all => all.map(each => each.src)"
    before, beside = case.locator("img").evaluate_all(pictures), other.locator("img").evaluate_all(pictures)
    case.locator("[name=slice]").press("ArrowRight")
    assert case.locator("output").inner_text() == "slice 3 of 3"
    after = case.locator("img").evaluate_all(pictures)
    assert all(one != another for one, another in zip(before, after, strict=True))
    case.locator("[name=slice]").press("ArrowLeft")
    assert case.locator("img").evaluate_all(pictures) == before
    assert other.locator("img").evaluate_all(pictures) == beside


def test_zoom_makes_the_pictures_larger_inside_their_frame(page: Page) -> None:
    case = page.locator(".case").first
    frame, picture = case.locator(".zoomed"), case.locator("img.under")
    before = picture.bounding_box()["width"]
    case.locator("[name=zoom]").fill("3")
    assert picture.bounding_box()["width"] == pytest.approx(3 * before, rel=0.05)
    assert frame.bounding_box()["width"] == pytest.approx(before, rel=0.05)


def test_dark_is_the_system_s_wish_or_the_button_s(page: Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colour)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")
    page.get_by_role("button", name="Light or dark").press("Enter")
    assert page.evaluate(colour) == light
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(colour) == light
    assert page.locator(".viewer").first.is_hidden()
    assert page.locator(".strip img").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing(page: Page, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    page.wait_for_timeout(200)
    found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()


def test_it_prints(page: Page) -> None:
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
