"""Debian's Chromium, and pages that must neither complain nor ask for anything."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

#: WebGL without a GPU.
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=FLAGS)


@pytest.fixture
def opened(browser: Browser) -> Callable[[Path], AbstractContextManager[Page]]:
    """Opens a page from disk; whatever it complains of or asks for elsewhere fails the test."""

    @contextmanager
    def open_page(path: Path) -> Iterator[Page]:
        troubles: list[str] = []

        def own(url: str) -> bool:
            return url == path.as_uri() or url.startswith(("data:", "blob:"))

        with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
            page = context.new_page()
            page.on("console", lambda message: troubles.append(message.text))
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("request", lambda request: None if own(request.url) else troubles.append(request.url))
            page.goto(path.as_uri())
            yield page
        assert not troubles

    return open_page
