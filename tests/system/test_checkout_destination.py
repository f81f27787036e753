"""Where a checkout may go, what it leaves there if it fails, and that it cannot be led away."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from regrain import PackageStore
from regrain.errors import RegrainError, UsageError
from tests.checkouts import NAME, is_plain, linked, make_store, shared_differences
from tests.command import Regrain
from tests.compare import Snapshot, compare, differences, snapshot
from tests.conftest import remove
from tests.faults.inline import Way, initialise, migrate
from tests.mounts import unmount
from tests.trees import ACL_ACCESS, ACL_DEFAULT, Abilities, Tree, acl

MODES = ("exact", "shared")
NOBODY = 65534
SECONDS = 1.5


@pytest.fixture
def place(workplace: Path) -> Path:
    return workplace / "store"


@pytest.fixture
def before(place: Path) -> Snapshot:
    return make_store(place)


def refused(store: Path, out: Path | str, mode: str = "shared") -> UsageError:
    """The error of a checkout, of a dry run too, to a place that cannot be used."""
    package = PackageStore.open(store).get_package(NAME)
    for dry_run in (True, False):
        with pytest.raises(UsageError) as caught:
            package.checkout(out, mode=mode, dry_run=dry_run)
    assert caught.value.exit_code == 2
    return caught.value


def test_in_the_store(place: Path, before: Snapshot, workplace: Path) -> None:
    """Whatever way leads there."""
    (workplace / "way").symlink_to(place / "temp")
    whole = snapshot(place)
    for out in (
        place / "out",
        place / "objects" / "out",
        place / NAME / "out",
        place,
        place / "temp",
        place / "temp" / "..",
        place / "temp" / ".",
        f"{place}/",
        workplace / "way" / "out",
    ):
        assert "in the store" in refused(place, out).what, out
    assert differences(whole, snapshot(place), identity=True) == []


def test_beside_the_store(place: Path, before: Snapshot) -> None:
    """A way through the store is no place in it."""
    PackageStore.open(place).get_package(NAME).checkout(place / "temp" / ".." / ".." / "out")
    assert compare(place / NAME, place.parent / "out") == []


def test_a_symbolic_link(place: Path, before: Snapshot, workplace: Path) -> None:
    (workplace / "empty").mkdir()
    for target in ("empty", "no-such", str(place)):
        (workplace / "link").symlink_to(target)
        for name in ("link", "link/"):
            assert "symbolic link" in refused(place, f"{workplace}/{name}").why
        (workplace / "link").unlink()
    assert os.listdir(workplace / "empty") == []
    assert not (workplace / "no-such").exists()


def test_what_is_no_directory(place: Path, before: Snapshot, workplace: Path) -> None:
    (workplace / "file").write_text("mine")
    os.mkfifo(workplace / "fifo")
    for name in ("file", "fifo", "file/", "file/x", "no/such", "", "nul\0", "n" * 256):
        refused(place, f"{workplace}/{name}" if name else "")
    assert (workplace / "file").read_text() == "mine"
    assert sorted(os.listdir(workplace)) == ["fifo", "file", "store"]


@pytest.mark.parametrize("there", ["a file", "a directory", "a dangling link"])
def test_what_is_not_empty(place: Path, before: Snapshot, workplace: Path, there: str) -> None:
    out = workplace / "out"
    out.mkdir()
    if there == "a file":
        (out / ".x").touch()
    elif there == "a directory":
        (out / "x").mkdir()
    else:
        (out / "x").symlink_to("nowhere")
    was = snapshot(out)
    assert "not empty" in refused(place, out).what
    assert differences(was, snapshot(out), identity=True) == []
    Regrain(place)("checkout", NAME, out, code=2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["absent", "slash", "empty", "here", "relative"])
def test_where_it_goes(
    place: Path,
    before: Snapshot,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    way: str,
) -> None:
    out = workplace / "out"
    if way in {"empty", "here"}:
        out.mkdir()
    monkeypatch.chdir(out if way == "here" else workplace)
    said = {"slash": f"{out}//", "here": ".", "relative": "out"}.get(way, str(out))
    PackageStore.open(place).get_package(NAME).checkout(said, mode=mode)
    if mode == "shared":
        assert shared_differences(before, out, place) == []
    else:
        assert differences(before, snapshot(out), holes=True) == []


def test_what_the_destination_inherits_does_not_spread(
    place: Path, before: Snapshot, workplace: Path, able: Abilities
) -> None:
    if not able.acls:
        pytest.skip("needs access lists")
    out = workplace / "out"
    out.mkdir()
    os.setxattr(out, ACL_DEFAULT, acl(54321, 7))
    out.chmod(0o2777)
    PackageStore.open(place).get_package(NAME).checkout(out)
    assert differences(before, snapshot(out)) == []


def fill_up(filler: Path, room: int) -> None:
    """Take all the space of a file system but a little."""
    with filler.open("wb", buffering=0) as stream:
        for piece in (bytes(1 << 20), bytes(4096)):
            with suppress(OSError):
                while True:
                    stream.write(piece)
        os.fsync(stream.fileno())
        stream.truncate(stream.tell() - room)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("there", [False, True])
def test_a_full_file_system(
    place: Path, before: Snapshot, ext4: Path, able: Abilities, mode: str, there: bool
) -> None:
    """Exit 1, and as it was: an existing destination keeps its own metadata."""
    fill_up(ext4 / "filler", room=512 << 10)
    out = ext4 / "out"
    if there:
        out.mkdir()
        os.chown(out, 1234, 4321)
        out.chmod(0o2750)
        os.setxattr(out, "user.mine", b"1")
        os.setxattr(out, ACL_ACCESS, acl())
        os.setxattr(out, ACL_DEFAULT, acl(54321, 7))
        os.utime(out, ns=(1, 1))
    was = snapshot(ext4)
    said = Regrain(place)("checkout", NAME, out, "--mode", mode, "--json", code=1)
    assert said.document["reason"] == "No space left on device"
    assert str(out) in said.stderr
    now = snapshot(ext4)
    now.pop(b"")
    was.pop(b"")
    assert differences(was, now, identity=True) == []


@pytest.fixture
def ramfs(workplace: Path) -> Iterator[Path]:
    """A file system without extended attributes."""
    point = workplace / "ramfs"
    point.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "none", point], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        yield point
    finally:
        unmount(point)


@pytest.mark.root
@pytest.mark.parametrize("there", [False, True])
def test_metadata_comes_back_even_if_the_last_step_fails(
    place: Path, ramfs: Path, able: Abilities, there: bool
) -> None:
    """The package's root, dressed last, has an attribute that the destination cannot have."""
    if not able.user_xattrs:
        pytest.skip("needs extended attributes")
    with Tree(place / NAME, Random(1)) as tree:
        tree.file(b"closed/file", b"content")
        tree.directory(b"closed", 0o000)
        tree.directory(b"", 0o700, owner=(5, 6), xattrs={"user.root": b"1"})
    initialise(place)
    out = ramfs / "out"
    if there:
        out.mkdir(0o751)
        os.utime(out, ns=(1, 1))
    was = snapshot(ramfs)
    said = Regrain(place)("checkout", NAME, out, code=1).stderr
    assert "user.root" in said
    now = snapshot(ramfs)
    now.pop(b"")
    was.pop(b"")
    assert differences(was, now, identity=True) == []


@pytest.mark.root
def test_attributes_it_got_before_it_failed_are_gone(xfs: Path, ext4: Path) -> None:
    """The package's root has attributes, one of which is too large for the destination."""
    with Tree(xfs / "store" / NAME, Random(1)) as tree:
        small = {f"user.{letter}": b"1" for letter in "abcdefgh"}
        tree.directory(b"", xattrs={**small, "user.large": bytes(20_000)})
    initialise(xfs / "store")
    out = ext4 / "out"
    out.mkdir()
    was = snapshot(out)
    said = Regrain(xfs / "store")("checkout", NAME, out, code=1).stderr
    assert "user.large" in said
    assert differences(was, snapshot(out), identity=True) == []


class Swapper(threading.Thread):
    """Puts symbolic links that lead out in the place of a checkout's directories and files."""

    def __init__(self, out: Path, outside: Path) -> None:
        super().__init__()
        self.swaps = 0
        self.stopped = threading.Event()
        self._out, self._outside = out, outside

    def run(self) -> None:
        while not self.stopped.is_set():
            for name in ("bin", "share", "group", "other", "bin/tool", "share/text", "link"):
                path = self._out / name
                with suppress(OSError):
                    path.rename(self._out / "aside")
                    path.symlink_to(self._outside)
                    self.swaps += 1
                    path.unlink()
                    (self._out / "aside").rename(path)
        with suppress(OSError):
            (self._out / "aside").rename(self._out / "left")


def empty(out: Path) -> None:
    """Remove what is left, however often somebody puts something in again."""
    while out.exists():
        subprocess.run(["rm", "-rf", "--", out], capture_output=True, check=False)


@pytest.mark.parametrize("mode", MODES)
def test_nobody_leads_it_out(place: Path, before: Snapshot, workplace: Path, mode: str) -> None:
    outside = workplace / "outside"
    outside.mkdir(0o751)
    (outside / "text").write_text("mine")
    (outside / "tool").symlink_to("text")
    was, store = snapshot(outside), snapshot(place)
    package = PackageStore.open(place).get_package(NAME)
    swapper = Swapper(workplace / "out", outside)
    swapper.start()
    done = failed = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            package.checkout(workplace / "out", mode=mode)
            done += 1
        except RegrainError:
            failed += 1
        empty(workplace / "out")
    swapper.stopped.set()
    swapper.join()
    assert swapper.swaps > 100
    assert failed, (done, swapper.swaps)
    assert differences(was, snapshot(outside), identity=True) == []
    assert differences(store, snapshot(place), identity=True) == []


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users can reach."""
    with tempfile.TemporaryDirectory(prefix="regrain-") as made:
        place = Path(made)
        place.chmod(0o755)
        yield place
        remove(place / "store")


def store_of(owner: int, place: Path, foreign: str = "") -> Snapshot:
    """A store whose package belongs to one owner, but for one path."""
    store = place / "store"
    with Tree(store / NAME, Random(1)) as tree:
        tree.file(b"bin/tool", b"a tool\n", 0o755)
        tree.file(b"bin/wide", b"a private file\n", 0o664)
        tree.directory(b"closed", 0o000)
        tree.file(b"etc/ours", b"ours\n")
        tree.file(b"etc/theirs", b"theirs\n", 0o644)
    subprocess.run(["chown", "-R", f"{owner}:{owner}", store], check=True)
    if foreign:
        os.chown(store / NAME / foreign, 1234, 1234)
    before = snapshot(store / NAME)
    initialise(store)
    migrate(store, Way(ingest="copy"))
    (place / "theirs").mkdir()
    os.chown(place / "theirs", NOBODY, NOBODY)
    return before


def as_nobody(place: Path) -> Regrain:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, to be another user")
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return Regrain(place / "store", prefix=drop)


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_an_owner_needs_no_root(open_place: Path, mode: str) -> None:
    before = store_of(NOBODY, open_place)
    out = open_place / "theirs" / "out"
    as_nobody(open_place)("checkout", NAME, out, "--mode", mode)
    if mode == "shared":
        assert shared_differences(before, out, open_place / "store") == []
        assert linked(out, open_place / "store") == {
            path for path, entry in before.items() if is_plain(entry, (NOBODY, NOBODY))
        }
    else:
        assert differences(before, snapshot(out)) == []


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_a_file_of_another_owner_needs_root_only_where_it_is_wanted(
    open_place: Path, mode: str
) -> None:
    """What was made before is gone, directories that their owner cannot read as well."""
    store_of(NOBODY, open_place, "etc/theirs")
    regrain, out = as_nobody(open_place), open_place / "theirs" / "out"
    said = regrain("checkout", NAME, out, "--mode", mode, code=1).stderr
    assert "etc/theirs" in said
    assert "Operation not permitted" in said
    assert "root" in said
    assert not out.exists()
    regrain("checkout", NAME, out, "--mode", mode, "--subtree", "bin")
    assert sorted(os.listdir(out)) == ["tool", "wide"]


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_another_user_gets_an_error_and_no_rest(open_place: Path, mode: str) -> None:
    """The kernel lets nobody link files of others, and nobody may give files away."""
    store_of(0, open_place)
    regrain = as_nobody(open_place)
    said = regrain("checkout", NAME, open_place / "theirs/out", "--mode", mode, code=1).stderr
    assert "root" in said
    assert os.listdir(open_place / "theirs") == []
    regrain("checkout", NAME, open_place / "out", "--mode", mode, code=2)
    assert not (open_place / "out").exists()


@pytest.mark.root
def test_what_was_made_is_removed_whatever_its_modes(open_place: Path) -> None:
    """A directory its owner cannot read is dressed before the one that fails."""
    store_of(NOBODY, open_place, "bin")
    out = open_place / "theirs" / "out"
    said = as_nobody(open_place)("checkout", NAME, out, code=1).stderr
    assert "'bin'" in said
    assert not out.exists()
