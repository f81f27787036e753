"""Pictures of the page of `serve`, of a real migration: `make screenshots` writes docs/images.

Packages are made of what Python has installed; one of them fails. The migration is told to read
slowly, so that there is something to see.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.corpus import local

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
BYTES_MAX = 150_000
READ_MIB_S = 2
SETTINGS = {"SETTLE": "0", "LATENCY_SLOWDOWN_MAX": "1000"}
WIDE, PHONE = (1280, 1150), (390, 844)


def main() -> int:
    """Take the pictures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.screenshots", description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    chromium = parser.parse_args().chromium
    if chromium is None:
        print("needs a browser: apt install chromium, or --chromium PATH")
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="regrain-") as place:
        store = Path(place) / "store"
        _make(store)
        with _serving(store) as address, _browser(chromium) as browser:
            _take(store, address, browser)
    sizes = {path.name: path.stat().st_size for path in sorted(IMAGES.glob("page-*.png"))}
    print("\n".join(f"{name}: {size:,} bytes" for name, size in sizes.items()))
    return int(any(size > BYTES_MAX for size in sizes.values()))


def _make(store: Path) -> None:
    local.build(store, lambda _: None)
    failing = min(store.iterdir())
    os.mkfifo(failing / "control.fifo")
    _regrain(store, "plan")
    _regrain(store, "init")
    _regrain(store, "set", f"max-read={READ_MIB_S}")


def _take(store: Path, address: str, browser: Any) -> None:  # noqa: ANN401 -- Playwright's
    with subprocess.Popen(
        _words(store, "migrate", "--batch", "2"),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        page = _open(browser, address, WIDE, "light")
        page.locator(".percent", has_text=re.compile(r"[5-7]\d\.\d %")).wait_for(timeout=120_000)
        _shoot(page, "page-migrating")
        _shoot(_open(browser, address, WIDE, "dark"), "page-migrating-dark")
        _shoot(_open(browser, address, PHONE, "light"), "page-phone")
        run.wait()
    page = _open(browser, address, PHONE, "dark")
    page.locator("#packages").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('packages').scrollIntoView()")
    _shoot(page, "page-phone-packages")
    page = _open(browser, address, (1280, 900), "light")
    page.evaluate("document.getElementById('packages').scrollIntoView()")
    _shoot(page, "page-packages")


def _open(browser: Any, address: str, size: tuple[int, int], theme: str) -> Any:  # noqa: ANN401
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(address)
    page.locator("#link.live").wait_for()
    page.locator("#plot-rate canvas").wait_for()
    page.locator("#space tr", has_text="now").first.wait_for()
    return page


def _shoot(page: Any, name: str) -> None:  # noqa: ANN401
    page.screenshot(path=IMAGES / f"{name}.png")


@contextmanager
def _browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def _serving(store: Path) -> Iterator[str]:
    with subprocess.Popen(
        _words(store, "serve", "--listen", "127.0.0.1:0"),
        env=_environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            select.select([server.stderr], [], [], 30)
            found = re.search(r"http://[\d.]+:\d+/", server.stderr.readline())
            assert found is not None, "it does not serve"
            yield found[0]
        finally:
            server.kill()


def _regrain(store: Path, *words: str) -> None:
    subprocess.run(_words(store, *words), env=_environment(), check=True, capture_output=True)


def _words(store: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "regrain", "--store", str(store), *words]


def _environment() -> dict[str, str]:
    settings = {f"REGRAIN_MIGRATION__{key}": value for key, value in SETTINGS.items()}
    return {**os.environ, **settings}


if __name__ == "__main__":
    sys.exit(main())
