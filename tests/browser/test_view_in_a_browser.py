"""Cases as somebody looks at them: opened from disk, in Debian's Chromium, without a GPU."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from condswin.config.profiles import compose
from condswin.steps.view import view
from tests.steps.viewed import write_ct, write_reconstruction, write_scan

pytestmark = pytest.mark.browser

Open = Callable[[Path], AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mri")
    target = write_scan(folder / "knee.h5")
    write_reconstruction(folder / "mine/knee.h5", target * 0.9)
    return view(compose(["demo"]), folder / "knee.h5", predictions=[folder / "mine"], out=folder / "knee.html")


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    write_ct(folder)
    given = folder / "volume-0.nii.gz"
    return view(compose(["demo"]), given, predictions=[folder / "mine"], out=folder / "volume.html")


def drawn(page: Page) -> list[int]:
    """Red, green and blue of what is on the canvas, without the letters at its edges."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    picture = np.asarray(Image.open(io.BytesIO(page.locator("#canvas").screenshot())).convert("RGB"), np.int64)
    return picture[40:-40, 40:-40].sum(axis=(0, 1)).tolist()


def ready(page: Page) -> None:
    page.wait_for_function("document.querySelector('output').textContent.startsWith('slice')")


def test_a_scan_s_slices_and_pictures_are_compared(opened: Open, scan: Path) -> None:
    with opened(scan) as page:
        assert page.title() == "knee: condswin view"
        case = page.locator(".case")
        assert case.locator("[name=left] option:checked").inner_text() == "target"
        assert case.locator("[name=right] option:checked").inner_text() == "mine"
        before = case.locator("img").evaluate_all("all => all.map(each => each.src)")
        case.locator("[name=slice]").press("ArrowRight")
        assert case.locator("output").inner_text() == "slice 3 of 3"
        assert case.locator("img").evaluate_all("all => all.map(each => each.src)") != before
        case.locator("[name=wipe]").fill("20")
        clip = case.locator("img.over").evaluate("each => getComputedStyle(each).clipPath")
        assert clip == "inset(0px 0px 0px 20%)"
        assert case.locator(".strip img").first.get_attribute("alt") == "kspace of case knee, slice 2 of 3"


def test_a_volume_s_slices_are_changed_by_keys_and_slider(opened: Open, volume: Path) -> None:
    with opened(volume) as page:
        ready(page)
        output, slider = page.locator("output"), page.locator("[name=slice]")
        assert output.inner_text() == "slice 4 of 6, -160 to 240 HU"
        before = drawn(page)
        page.locator("#canvas").press("ArrowUp")
        assert output.inner_text().startswith("slice 5 of 6")
        assert drawn(page) != before
        slider.press("ArrowLeft")
        assert output.inner_text().startswith("slice 4 of 6")
        assert drawn(page) == before
        for _ in range(9):
            page.locator("#canvas").press("ArrowDown")
        assert output.inner_text().startswith("slice 1 of 6")
        page.locator("[name=plane]").select_option("coronal")
        assert output.inner_text().startswith("slice 19 of 36")


def test_window_and_level_and_overlays_change_what_is_drawn(opened: Open, volume: Path) -> None:
    with opened(volume) as page:
        ready(page)
        for name in ("target", "mine"):
            page.locator(f"[data-layer={name}]").fill("0")
        bare = drawn(page)
        assert bare[0] == bare[1] == bare[2] > 0  # grey
        page.locator("[name=preset]").select_option(label="bone (-400 to 1400 HU)")
        assert page.locator("output").inner_text().endswith("-400 to 1400 HU")
        assert drawn(page)[0] < bare[0]
        page.locator("[name=level]").fill("1500")
        assert page.locator("[name=preset]").input_value() == ""
        assert drawn(page)[0] < bare[0] / 2
        page.locator("[name=preset]").select_option("")
        assert drawn(page) == bare
        page.locator("[data-layer=target]").fill("1")
        yellow = drawn(page)
        assert yellow[0] > yellow[2]
        page.locator("[data-layer=target]").fill("0")
        page.locator("[data-layer=mine]").fill("1")
        blue = drawn(page)
        assert blue[2] > blue[0]
        page.locator("[name=outlines]").uncheck()
        assert drawn(page) != blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("which", ["scan", "volume"])
def test_it_fits_and_axe_finds_nothing(
    opened: Open, request: pytest.FixtureRequest, which: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(request.getfixturevalue(which)) as page:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        if which == "volume":
            ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page)
        assert not found.response["violations"], found.generate_report()


def test_a_browser_without_webgl_says_so(opened: Open, volume: Path, tmp_path: Path) -> None:
    text = volume.read_text().replace('getContext("webgl2")', "webgl2")
    page_file = tmp_path / "none.html"
    page_file.write_text(text)
    with opened(page_file) as page:
        page.wait_for_function("document.querySelector('output').textContent.includes('no WebGL 2')")
