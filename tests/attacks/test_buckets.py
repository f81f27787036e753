"""A bucket, or a service, of a malicious owner: nothing is published, nothing grows, all ends."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from pathlib import Path

import pytest
import zstandard

from regrain import disk
from regrain.app import remote as app
from regrain.app.remote import Pulled
from regrain.app.remote_care import verify
from regrain.errors import CorruptionError, RegrainError, RemoteError
from regrain.model.file_list import FOOTER
from regrain.remote import place
from regrain.remote.keys import list_key
from regrain.remote.lists import fetch_list, listed
from regrain.remote.place import Remote
from regrain.remote.pushing import Pushed
from regrain.settings import Settings
from regrain.store.root import StoreRoot
from tests.attacks.buckets import Honest, lying
from tests.attacks.lists import ROOT, file, forged, hostile
from tests.compare import differences, snapshot
from tests.faults.inline import initialise
from tests.verbs import PACKAGE, TWIN, make_package

URL = "s3://b"


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """What an honest push of two packages left."""
    store = tmp_path / "pushing"
    for name in (PACKAGE, TWIN):
        make_package(store / name, name[:2])
    initialise(store)
    found = list(app.push(StoreRoot(str(store)), None, f"file://{tmp_path}/bucket"))
    assert all(isinstance(one, Pushed) for one in found)
    return tmp_path / "bucket"


@pytest.fixture
def root(tmp_path: Path) -> StoreRoot:
    """A store without packages."""
    (tmp_path / "store").mkdir()
    initialise(tmp_path / "store")
    return StoreRoot(str(tmp_path / "store"))


def pulled(root: StoreRoot, url: str = URL) -> list[Pulled | RegrainError]:
    found = list(app.pull(root, Settings(), None, url))
    assert os.listdir(Path(root.path) / "temp") == []
    good = {one.package_hash for one in found if isinstance(one, Pulled)}
    assert set(os.listdir(Path(root.path) / "packages")) == good
    return found


def test_an_honest_one_is_believed(
    bucket: Path, root: StoreRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lying(bucket, Honest, monkeypatch):
        assert len([one for one in pulled(root) if isinstance(one, Pulled)]) == 2
        assert verify(URL, []).damaged == {}


class More(Honest):
    """Sends far more than was asked for."""

    def send_range(self, first: int, last: int, whole: int, piece: bytes) -> None:
        where = {"Content-Range": f"bytes {first}-{last}/{whole}"}
        self.say(206, piece + bytes(64 << 20), where)


class Less(Honest):
    """Ends before it sent what it promised."""

    def send_range(self, first: int, last: int, whole: int, piece: bytes) -> None:
        super().send_range(first, last, whole, piece[: len(piece) // 2])


class Whole(Honest):
    """Sends another range than was asked for."""

    def send_range(self, first: int, last: int, whole: int, piece: bytes) -> None:
        super().send_range(first + 1, last + 1, whole + 2, piece)


@pytest.mark.parametrize("liar", [More, Less, Whole])
def test_answers_of_another_length(
    bucket: Path, root: StoreRoot, liar: type[Honest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_RETRIES_MAX", 0)
    with lying(bucket, liar, monkeypatch), pytest.raises((CorruptionError, RemoteError)):
        pulled(root)
    assert os.listdir(Path(root.path) / "packages") == []


@pytest.mark.parametrize("liar", [More, Less])
def test_what_comes_is_counted_as_it_comes(
    bucket: Path, tmp_path: Path, liar: type[Honest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends there, and not only once a hash was found wrong."""
    monkeypatch.setattr(place, "_RETRIES_MAX", 0)
    wanted = (bucket / list_key(PACKAGE)).stat().st_size
    with lying(bucket, liar, monkeypatch), (tmp_path / "target").open("wb") as target:
        with pytest.raises((CorruptionError, RemoteError)):
            Remote(URL).fetch(list_key(PACKAGE), target.fileno(), 1 << 20)
        assert os.fstat(target.fileno()).st_size <= wanted


class Drip(Honest):
    """Sends a byte now and then, for ever."""

    def send_range(self, first: int, last: int, whole: int, piece: bytes) -> None:
        where = {"Content-Range": f"bytes {first}-{last}/{whole}"}
        self.say(206, b"", where, length=len(piece))
        for number in range(len(piece)):
            self.wfile.write(piece[number : number + 1])
            self.wfile.flush()
            time.sleep(0.2)


def test_a_drip_ends(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_RETRIES_MAX", 0)
    monkeypatch.setattr(place, "_REQUEST_SECONDS", 1)
    with lying(bucket, Drip, monkeypatch), pytest.raises(RemoteError, match="cannot fetch"):
        verify(URL, [])


def test_a_listing_without_end(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with lying(bucket, Honest, monkeypatch) as server:
        server.listed = ([list_key(f"{n:064x}")] * 500 for n in itertools.count())
        with pytest.raises(RemoteError, match="does not end"):
            list(Remote(URL).listing("packages", 5_000))


def test_pages_without_keys_and_without_end(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_REQUEST_SECONDS", 1)
    with lying(bucket, Honest, monkeypatch) as server:
        server.listed = itertools.repeat([])
        with pytest.raises(RemoteError, match="does not end"):
            list(Remote(URL).listing("packages"))
        server.listed = iter([])


@pytest.mark.parametrize(
    "key",
    [
        "packages/../../etc/passwd",
        f"packages/{'A' * 64}/files.json.zst",
        f"packages/{'a' * 64}/files.json.zst/../x",
        f"packages/{'a' * 64}/files.json.zst\n",
        f"packages//{'a' * 64}/files.json.zst",
        "packages/\x7f\u202e%2e%2e%2f",
        "/packages/x",
    ],
)
def test_keys_that_are_none_of_ours(
    bucket: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lying(bucket, Honest, monkeypatch) as server:
        server.listed = iter([[key, list_key(PACKAGE)]])
        remote = Remote(URL)
        found = [PACKAGE]
        with contextlib.suppress(RemoteError):  # the library refuses some, which is as well
            found = [str(one) for one in listed(remote)]
        assert found == [PACKAGE]


class Elsewhere(Honest):
    """Sends whoever asks for an object to another server."""

    def do_GET(self) -> None:  # noqa: N802 -- as the library calls it
        if "/objects/" in self.path:
            self.say(307, b"", {"Location": self.other + self.path})
        else:
            super().do_GET()

    other = ""


@pytest.mark.parametrize("is_good", [True, False])
def test_who_is_sent_elsewhere_takes_no_credential_along_and_proves_what_comes(
    bucket: Path, root: StoreRoot, is_good: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    for path in (p for p in bucket.rglob("*") if p.is_file()):
        copy = other / path.relative_to(bucket)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes() if is_good else bytes(path.stat().st_size))
    with lying(other, Honest, monkeypatch) as second, lying(bucket, Elsewhere, monkeypatch):
        monkeypatch.setattr(Elsewhere, "other", second.endpoint)
        found = pulled(root)
        assert all(isinstance(one, Pulled if is_good else CorruptionError) for one in found)
        assert second.heads
        assert not any(name.lower() == "authorization" for one in second.heads for name in one)
        assert "hunter2" not in str(second.heads)


class Colourful(Honest):
    """Refuses with what would paint a terminal."""

    def do_HEAD(self) -> None:  # noqa: N802 -- as the library calls it
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802 -- as the library calls it
        self.say(403, b"\x1b[2J\x1b]0;owned\x07 hunter2hunter2 " + bytes(1 << 20))


def test_words_of_a_service_are_shown_as_text(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        lying(bucket, Colourful, monkeypatch),
        pytest.raises(RemoteError, match="denied") as caught,
    ):
        list(Remote(URL).listing("packages"))
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 1000


# lists


def put_list(bucket: Path, content: bytes, package: str = PACKAGE) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    (bucket / list_key(package)).write_bytes(packed)


def test_lists_that_lead_out_ask_too_much_or_cannot_be(
    bucket: Path, root: StoreRoot, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "sub" / "kept").write_text("as it was\n")
    before = snapshot(victim)
    (bucket / list_key(TWIN)).unlink()
    an_object = next(path for path in sorted(bucket.glob("objects/*/*.zst")))
    size = len(zstandard.ZstdDecompressor().decompress(an_object.read_bytes()))
    for name, content in hostile(an_object.stem, size).items():
        put_list(bucket, content)
        try:
            found = pulled(root, f"file://{bucket}")
        except RegrainError:
            found = []
        assert differences(before, snapshot(victim), identity=True) == [], name
        assert not Path("/tmp/evil").exists()
        for one in (one for one in found if isinstance(one, Pulled)):
            # A tree that is odd and leads nowhere: what is published is what is listed.
            raise AssertionError(f"{name}: {one}")


def test_a_list_that_is_a_bomb_is_not_unpacked(bucket: Path, tmp_path: Path) -> None:
    honest = forged([ROOT])[: -len(FOOTER)]
    put_list(bucket, honest + bytes(100 << 20))
    assert (bucket / list_key(PACKAGE)).stat().st_size < 20_000
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    remote = Remote(f"file://{bucket}")
    with (
        disk.Closing(os.open(scratch, os.O_RDONLY)) as fd,
        pytest.raises(CorruptionError, match="too long"),
    ):
        fetch_list(remote, PACKAGE, fd)
    assert sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file()) == 0


@pytest.mark.parametrize("where", ["in one list", "in two"])
def test_an_object_of_two_sizes_is_damage(bucket: Path, where: str) -> None:
    """Whichever of them was looked at last would hide the other."""
    an_object = next(path for path in sorted(bucket.glob("objects/*/*.zst")))
    size = len(zstandard.ZstdDecompressor().decompress(an_object.read_bytes()))
    names = [PACKAGE, PACKAGE] if where == "in one list" else [PACKAGE, TWIN]
    for path in bucket.glob("packages/*/*"):
        path.unlink()
    for wrong in (0, 1):
        rows = [file(f"f{n}", an_object.stem, size + (n == wrong)) for n in (0, 1)]
        if names[0] == names[1]:
            put_list(bucket, forged([ROOT, *rows]))
        else:
            for name, row in zip(names, rows, strict=True):
                put_list(bucket, forged([ROOT, row]).replace(PACKAGE.encode(), name.encode()), name)
        assert verify(f"file://{bucket}", []).damaged, wrong


def test_a_deep_form_is_damage(bucket: Path) -> None:
    for raw in (b"[" * 4000, b'{"format":' * 300, json.dumps({"format": "x" * 3000}).encode()):
        (bucket / "regrain.json").write_bytes(raw)
        with pytest.raises(RegrainError) as caught:
            verify(f"file://{bucket}", [])
        assert caught.value.exit_code in {2, 4}
