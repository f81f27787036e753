"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.watching import Watched

_NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS_MAX = 20


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; where none can be had the tests say so."""
    reason = "needs playwright, of the dev group, which has no build for this platform"
    pytest.importorskip("uvicorn", reason="the server is an extra: regrain[web]")
    driver = pytest.importorskip("playwright.sync_api", reason=reason)
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs a browser: apt install chromium")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        yield browser
        browser.close()


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    """A tab; at its end nothing went wrong in it and nothing was asked of anybody else."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SECONDS_MAX * 1000)
    found = Watched(context.new_page())
    yield found
    context.close()
    found.judge()
