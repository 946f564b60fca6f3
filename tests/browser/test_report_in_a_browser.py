"""The report as its readers meet it: opened from disk, in Debian's Chromium."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Page

from condswin.reporting.html import write_report
from tests.reporting.pages import alone, write

pytestmark = pytest.mark.browser

#: Widths from a telephone to a wall.
WIDTHS = (390, 820, 1440, 2560)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(opened: Callable[[Path], AbstractContextManager[Page]], report: Path) -> Iterator[Page]:
    with opened(report) as shown:
        yield shown


def test_it_opens_from_disk_in_silence(page: Page) -> None:
    assert page.title() == "condswin report: reconstruction refused"
    assert page.locator(".verdict").first.is_visible()
    assert page.locator(".viewer").first.is_visible()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_at_any_width(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    # The page arranges its tables once it was told its width.
    fits = "[...document.querySelectorAll('.frame:not(.wide)')].every(each => each.scrollWidth <= each.clientWidth + 1)"
    page.wait_for_function(fits, timeout=10_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 760:
        assert page.locator(".frame.wide").count() == 0


def test_a_table_that_does_not_fit_scrolls_beside_its_first_column(page: Page) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    # A table of so many columns that it does not fit.
    page.evaluate(
        "for (const row of document.querySelector('.frame table').rows)"
        " for (let more = 0; more < 20; more++) row.append(row.cells[1].cloneNode(true))"
    )
    page.set_viewport_size({"width": 801, "height": 900})
    frame = page.locator(".frame").first
    frame.and_(page.locator(".wide[tabindex='0']")).wait_for()
    first = frame.locator("tbody th").first
    before = first.bounding_box()["x"]
    frame.evaluate("each => { each.scrollLeft = 300; }")
    assert frame.evaluate("each => each.scrollLeft") == 300
    assert first.bounding_box()["x"] == before


def test_links_lead_to_sections(page: Page) -> None:
    links = page.get_by_role("navigation", name="Sections of MRI reconstruction").get_by_role("link")
    assert links.first.inner_text() == "Decision"
    for link in links.all():
        assert page.locator(link.get_attribute("href")).count() == 1
    links.last.press("Enter")
    assert page.get_by_role("heading", name="Provenance").is_visible()
    page.get_by_role("link", name="Top").press("Enter")
    assert page.evaluate("scrollY") < 10


def test_the_verdict_stands_beside_what_it_is_worth(page: Page) -> None:
    heading = page.locator(".verdict h2")
    assert "on generated data: it says nothing of patients" in heading.inner_text()
    assert page.locator(".verdict.doubted").count() == 1
    assert page.locator("thead button[title^='Peak signal']").count() > 0


def test_columns_sort_both_ways_and_cells_without_a_value_stay_last(page: Page) -> None:
    table = page.locator("table", has=page.get_by_text("Test cases: means over patients")).first
    header = table.locator("thead th", has_text="PSNR").first
    values = "rows => rows.map(row => Number(row.cells[1].dataset.sort))"
    for order, sign in (("descending", -1), ("ascending", 1)):
        header.get_by_role("button").press("Enter")
        assert header.get_attribute("aria-sort") == order
        found = table.locator("tbody tr").evaluate_all(values)
        assert found == sorted(found, key=lambda value: sign * value)
    rules = page.locator("table", has=page.get_by_text("The gate: refused")).first
    for _ in range(2):
        rules.locator("thead button").nth(2).click()
        assert rules.locator("tbody tr").count() == 2


def test_two_pictures_are_wiped_over_each_other(page: Page) -> None:
    case = page.locator(".case").first
    left, right = case.locator("[name=left]"), case.locator("[name=right]")
    assert left.locator("option:checked").inner_text() == "target"
    assert right.locator("option:checked").inner_text() == "unrolled-swin"
    assert case.locator(".wipe .name").all_inner_texts() == ["target", "unrolled-swin"]
    over = case.locator("img.over")
    before = over.evaluate("each => getComputedStyle(each).clipPath")
    case.locator("[name=wipe]").fill("20")
    assert over.evaluate("each => getComputedStyle(each).clipPath") == "inset(0px 0px 0px 20%)" != before
    case.locator(".strip button").nth(3).press("Enter")
    assert right.locator("option:checked").inner_text() == "error of zero-filled"
    assert over.get_attribute("src") == case.locator(".strip button img").nth(3).get_attribute("src")
    assert over.get_attribute("alt") == "error of zero-filled of case " + case.locator("h4").inner_text().split()[
        1] + ", slice 2 of 3"  # fmt: skip


def test_slices_change_in_all_pictures_of_a_case(page: Page) -> None:
    case, other = page.locator(".case").nth(0), page.locator(".case").nth(1)
    pictures = "all => all.map(each => each.src)"
    sliced = ".viewer img, .strip button img"
    before, beside = case.locator(sliced).evaluate_all(pictures), other.locator(sliced).evaluate_all(pictures)
    case.locator("[name=slice]").press("ArrowRight")
    assert case.locator("output").inner_text() == "slice 3 of 3"
    after = case.locator(sliced).evaluate_all(pictures)
    assert all(one != another for one, another in zip(before, after, strict=True))
    case.locator("[name=slice]").press("ArrowLeft")
    assert case.locator(sliced).evaluate_all(pictures) == before
    assert other.locator(sliced).evaluate_all(pictures) == beside
    # What shows all slices is there before them, and stays.
    assert case.locator(".strip.whole img").get_attribute("alt").startswith("Whole case case-")
    assert page.get_by_role("heading", name="What routing gains").is_visible()


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_one_evaluation_is_as_sound(
    opened: Callable[[Path], AbstractContextManager[Page]], tmp_path: Path, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    path = tmp_path / "alone.html"
    write_report(path, [alone()])
    with opened(path) as page:
        page.emulate_media(color_scheme=scheme)
        heading = page.locator(".verdict h2").inner_text()
        assert heading.startswith("MRI reconstruction: unrolled-swin evaluated")
        answer = page.locator(".verdict dt", has_text="Which?").locator("xpath=following-sibling::dd[1]")
        assert answer.inner_text() == "unrolled-swin alone."
        assert page.locator(".verdict").get_by_text("gate").count() == 0
        case = page.locator(".case").first
        case.locator("[name=slice]").press("ArrowLeft")
        assert case.locator("output").inner_text() == "slice 1 of 3"
        for width in (390, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page)
        assert not found.response["violations"], found.generate_report()


def test_it_prints(page: Page) -> None:
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
