"""What keeps pushes safe where a service, a disk or the store is in the way."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from regrain.app import remote as app
from regrain.errors import LockedError, PackageError, RegrainError, RemoteError
from regrain.remote import lease as leases
from regrain.remote.failures import failure
from regrain.remote.lease import Lease
from regrain.remote.place import Remote
from regrain.remote.pushing import Pushed, Pusher
from regrain.store.root import StoreRoot
from regrain.store.source import MovedError, PackageSource
from regrain.web import lookout
from regrain.web.lookout import within_patience
from tests.faults.inline import initialise
from tests.verbs import PACKAGE, TWIN, make_package


@pytest.fixture
def root(tmp_path: Path) -> StoreRoot:
    store = tmp_path / "store"
    for name in (PACKAGE, TWIN):
        make_package(store / name, name[:2])
    initialise(store)
    return StoreRoot(str(store))


def test_a_lease_that_was_silent_too_long_is_lost_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept wakes up and renews it; a collection may have begun meanwhile."""
    now = [1000.0]
    monkeypatch.setattr(leases, "_clock", lambda: now[0])
    remote = Remote(f"file://{tmp_path}/remote", makes=True)
    with Lease(remote, "push") as lease:
        now[0] += 250
        lease._put()
        now[0] += 250
        lease.check()  # it was renewed in between
        now[0] += 100
        with pytest.raises(RemoteError, match="did not answer"):
            lease.check()
        lease._put()
        with pytest.raises(RemoteError, match="did not answer"):
            lease.check()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("operation timed out: PUT /objects/a4/a403ffb401.zst", "does not answer"),
        ("Server returned non-2xx status code: 403 Forbidden", "access was denied"),
        ("status 401: who are you", "access was denied"),
        ("<Code>SignatureDoesNotMatch</Code>", "access was denied"),
    ],
)
def test_a_refusal_is_told_from_a_key_that_holds_its_digits(said: str, words: str) -> None:
    assert words in str(failure("s3://bucket/x", "objects/a4", "put", Exception(said)))


def test_a_package_that_moved_is_read_again_where_it_is_now(
    root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pusher.push
    moved: list[str] = []

    def push(pusher: Pusher, source: PackageSource) -> Pushed:
        if not moved:
            moved.append(source.hash)
            raise MovedError(errno.ENOENT, "the package moved", source.hash)
        return real(pusher, source)

    monkeypatch.setattr(Pusher, "push", push)
    found = list(app.push(root, None, f"file://{tmp_path}/remote"))
    assert moved
    assert [one.package_hash for one in found if isinstance(one, Pushed)] == sorted([PACKAGE, TWIN])


def test_what_cannot_be_read_fails_its_package_and_no_other(
    root: StoreRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = Pusher.push

    def push(pusher: Pusher, source: PackageSource) -> Pushed:
        if source.hash == PACKAGE:
            raise OSError(errno.EIO, "Input/output error")
        return pushed(pusher, source)

    monkeypatch.setattr(Pusher, "push", push)
    first, second = app.push(root, None, f"file://{tmp_path}/remote")
    assert isinstance(first, PackageError)
    assert (first.package, first.why) == (PACKAGE, "Input/output error")
    assert isinstance(second, Pushed)
    assert second.package_hash == TWIN


def test_a_disk_that_hangs_is_told_from_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "PATIENCE_SECONDS", 0.01)

    async def ask(error: Exception | None) -> object:
        asked = asyncio.get_running_loop().create_future()
        if error is not None:
            asked.set_exception(error)
        return await within_patience(asked)

    assert isinstance(asyncio.run(ask(None)), LockedError)
    failed = asyncio.run(ask(OSError(errno.EIO, "Input/output error", "/store")))
    assert isinstance(failed, RegrainError)
    assert not isinstance(failed, LockedError)
    assert (failed.path, failed.why) == ("/store", "Input/output error")
    refused = PackageError("no")
    assert asyncio.run(ask(refused)) is refused
