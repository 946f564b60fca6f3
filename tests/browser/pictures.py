"""Pictures of a report for the documentation: `python -m tests.browser.pictures report/report.html docs/pictures`.

Of a whole run of the profile `demo`; Chromium draws them.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, sync_playwright


def save(shot: bytes, path: Path) -> None:
    """As PNG of 128 colours, a third of the bytes."""
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(128).save(path, optimize=True)


def main(report: Path, out: Path) -> None:
    """Takes the first screen, and the first of each task's worst cases with the wipe in the middle."""
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=shutil.which("chromium")).new_page(
            viewport={"width": 1200, "height": 800}, color_scheme="light"
        )
        page.goto(report.resolve().as_uri())
        save(page.screenshot(), out / "report.png")
        # What sticks to the top of the window would lie over the case.
        page.add_style_tag(content=".top { position: static !important; }")
        for task, name in (("reconstruction", "report-worst.png"), ("segmentation", "report-worst-ct.png")):
            case: Locator = page.locator(f"#{task}-cases ~ .case").first
            case.scroll_into_view_if_needed()
            save(case.screenshot(), out / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
