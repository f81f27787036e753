"""One store on a network file system, seen from two mounts of it, as two machines see it.

SeaweedFS is one whose kernel-side needs nothing but FUSE. Its file locks are each mount's own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from regrain import disk
from regrain.app.database import use_database
from regrain.model import layout
from regrain.settings import Settings
from regrain.settings import Store as StoreSettings
from regrain.store.locks import run_lock
from regrain.store.root import StoreRoot
from tests import servers
from tests.command import Regrain
from tests.waiting import until
from tests.weed import WEED, Weed

pytestmark = [pytest.mark.slow, pytest.mark.root]


@contextmanager
def mounted(weed: Weed, place: Path) -> Iterator[Path]:
    """The server's files at a directory, as another machine would have them."""
    place.mkdir()
    cache = place.with_name(f"{place.name}-cache")
    with subprocess.Popen(
        [WEED, "mount", f"-filer={weed.filer}", f"-dir={place}", f"-cacheDir={cache}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            until(place.is_mount, "it is mounted")
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=False)
            process.terminate()


@pytest.fixture
def mounts(workplace: Path) -> Iterator[tuple[Path, Path]]:
    """A directory on the file system, from two mounts."""
    if not Path("/dev/fuse").exists():
        pytest.skip("no FUSE here")
    weed = Weed(workplace / "weed")
    with ExitStack() as stack:
        stack.callback(weed.kill)
        weed.start()
        one, two = (
            stack.enter_context(mounted(weed, workplace / name)) / "store"
            for name in ("one", "two")
        )
        one.mkdir()
        until(two.is_dir, "the other mount has it, too")
        yield one, two


def locks_said(regrain: Regrain) -> list[tuple[str, str]]:
    """What ``doctor`` says of the file system's locks."""
    findings = regrain("doctor", "--json", code=None).document["findings"]
    return [
        (one["level"], one["advice"])
        for one in findings
        if one["check"] == "file system" and "locks there cannot be trusted" in one["message"]
    ]


def test_file_locks_there_cannot_be_trusted_and_doctor_says_so(
    mounts: tuple[Path, Path],
) -> None:
    one, two = mounts
    Regrain(one)("init")
    until((two / layout.RUN_LOCK).exists, "the other mount has it, too")
    with ExitStack() as stack:
        for store in mounts:  # two runs at once, which nobody hinders
            stack.enter_context(run_lock(StoreRoot(str(store)), "regrain migrate"))
    [(level, advice)] = locks_said(Regrain(one))
    assert level == "warning"
    assert "PostgreSQL" in advice


def test_a_server_keeps_the_locks_of_both(
    mounts: tuple[Path, Path], postgres: servers.Server
) -> None:
    one, two = mounts
    environment = postgres.environment()
    Regrain(one, environment)("init")
    until((two / "store.toml").exists, "the other mount has it, too")
    for store in mounts:
        settings = Settings(store=StoreSettings(path=str(store), database=postgres.url()))
        use_database(str(store), settings)
    try:
        with run_lock(StoreRoot(str(one)), "regrain migrate on one"):
            with closing(open(two / layout.RUN_LOCK, "rb")) as file:
                assert disk.lock(file.fileno(), exclusive=True, wait=False)
            refused = Regrain(two, environment)("migrate", code=11)
            assert "regrain migrate on one" in refused.stderr
    finally:
        for store in mounts:
            use_database(str(store), Settings())
    [(level, _)] = locks_said(Regrain(two, environment))
    assert level == "advice"
