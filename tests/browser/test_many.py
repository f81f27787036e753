"""The page of a store with a hundred thousand packages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from regrain.ledger import Scanned, open_ledger
from tests.browser.watching import Watched
from tests.command import Regrain
from tests.system.serving import serving

PACKAGES = 100_000
LIST_SECONDS_MAX = 2.0
PAGE_SECONDS_MAX = 10.0
"""For the first look at all, on a machine that does other things, too; later ones are kept."""


@pytest.mark.slow
def test_a_hundred_thousand_packages(watched: Watched, store_path: Path, regrain: Regrain) -> None:
    store_path.mkdir()
    regrain("init")
    ledger = open_ledger(str(store_path))
    ledger.queue(
        Scanned(f"{number:064x}", f"tool-{number % 5000}", f"1.{number}", 10, 10, 1000, 4096)
        for number in range(PACKAGES)
    )
    for claim in ledger.claim(100):
        ledger.fail(claim.package_hash, "holds a fifo", b"opt/fifo")
    ledger.close()
    with serving(regrain) as server:
        begun = time.monotonic()
        assert server.get("/").status == 200
        assert time.monotonic() - begun < PAGE_SECONDS_MAX
        for query, rows in (
            ("", "1 to 25 of 100,000"),
            ("?page=4000", "99,976 to 100,000 of 100,000"),
            ("?kind=failed&page=2", "26 to 50 of 100"),
            ("?q=tool-4711%201.", "1 to 20 of 20"),
            (f"?q={77_777:064x}", "1 to 1 of 1"),
        ):
            begun = time.monotonic()
            answer = server.get(f"/packages{query}")
            took = time.monotonic() - begun
            assert rows in answer.text
            assert took < LIST_SECONDS_MAX, f"{query}: {took:.2f} s"
            assert len(answer.body) < 50_000
        begun = time.monotonic()
        assert server.get(f"/package/{77_777:064x}").status == 200
        assert time.monotonic() - begun < LIST_SECONDS_MAX
        watched.open(server)
        watched.page.get_by_role("link", name="Last").click()
        watched.shows("#listed caption", "99,976 to 100,000 of 100,000")
