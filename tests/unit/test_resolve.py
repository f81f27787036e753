"""Paths inside a package: symbolic links are followed there and never lead out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from regrain.app.store import PackageStore
from regrain.errors import UnknownPackageError
from regrain.model.entry import Entry, Kind
from regrain.model.manifest import Manifest
from regrain.model.phase import Layout
from regrain.store.legacy import LegacyPackage
from regrain.store.objects import Stored
from regrain.store.packages import FileLevelPackage
from regrain.store.source import PackageSource, resolve
from tests.conftest import remove
from tests.faults.inline import Way, initialise, migrate
from tests.faults.small import quick_place
from tests.trees import Tree, describe, package_hash

NAME = package_hash(1, "links")


class Memory:
    """A package that lies in a dictionary."""

    hash = NAME
    layout = Layout.FILE_LEVEL

    def __init__(self, links: dict[bytes, bytes], *files: bytes) -> None:
        self._entries = {b"": Entry(b"", Kind.DIRECTORY, 0o755, 0, 0, 0)}
        for path, target in links.items():
            self._add(Entry(path, Kind.SYMLINK, 0o777, 0, 0, 0, target=target))
        for path in files:
            self._add(Entry(path, Kind.FILE, 0o644, 0, 0, 0))

    def _add(self, entry: Entry) -> None:
        parent = entry.path.rpartition(b"/")[0]
        if parent not in self._entries:
            self._add(Entry(parent, Kind.DIRECTORY, 0o755, 0, 0, 0))
        self._entries[entry.path] = entry

    def lookup(self, path: bytes) -> Entry | None:
        return self._entries.get(path)

    def entries(self) -> Iterator[Entry]:
        return (self._entries[path] for path in sorted(self._entries))

    tree = entries

    def open_content(self, entry: Entry) -> int:
        return os.open(os.devnull, os.O_RDONLY)

    def open_stored(self, entry: Entry) -> Stored:
        return Stored(self.open_content(entry))

    def manifest(self) -> Manifest:
        return Manifest()


LINKS = {
    b"direct": b"bin/tool",
    b"chain1": b"chain2",
    b"chain2": b"direct",
    b"dir": b"bin",
    b"sub/up": b"../bin/tool",
    b"sub/dirup": b"..",
    b"dots": b"./bin/./tool",
    b"slashes": b"bin//tool",
    b"trailing": b"bin/",
    b"raw\xff": b"bin/tool",
    b"self": b"self",
    b"loop1": b"loop2",
    b"loop2": b"loop1",
    b"grow": b"grow/grow",
    b"absolute": b"/etc/passwd",
    b"absolute-inside": b"/bin/tool",
    b"escape": b"../outside",
    b"sub/escape": b"../../outside",
    b"home": b"..",
    b"dangling": b"no/such",
    b"hop": b"dir/tool",
}
FOUND = {
    b"": b"",
    b"bin": b"bin",
    b"bin/tool": b"bin/tool",
    b"direct": b"bin/tool",
    b"chain1": b"bin/tool",
    b"dir": b"bin",
    b"dir/tool": b"bin/tool",
    b"sub/up": b"bin/tool",
    b"sub/dirup": b"",
    b"sub/dirup/bin/tool": b"bin/tool",
    b"dots": b"bin/tool",
    b"slashes": b"bin/tool",
    b"trailing": b"bin",
    b"raw\xff": b"bin/tool",
    b"hop": b"bin/tool",
}
NOT_FOUND = (
    b"self",
    b"loop1",
    b"grow",
    b"grow/x",
    b"absolute",
    b"absolute-inside",
    b"escape",
    b"sub/escape",
    b"home",
    b"home/etc",
    b"dangling",
    b"nothing",
    b"bin/nothing",
    b"bin/tool/x",
    b"direct/x",
    b"..",
    b"../outside",
    b"sub/../../outside",
)
ODD = (b"bin//tool", b"./bin/tool", b"bin/./tool", b"sub/../bin/tool", b"x" * 300, b"bin/\0", b"\0")


@pytest.fixture
def memory() -> PackageSource:
    return Memory(LINKS, b"bin/tool")


@pytest.mark.parametrize(("path", "place"), [*FOUND.items()], ids=repr)
def test_links_are_followed_inside(memory: PackageSource, path: bytes, place: bytes) -> None:
    assert resolve(memory, path).path == place


@pytest.mark.parametrize("path", NOT_FOUND, ids=repr)
def test_links_do_not_lead_out_nor_round(memory: PackageSource, path: bytes) -> None:
    with pytest.raises(UnknownPackageError) as caught:
        resolve(memory, path)
    assert caught.value.package == NAME


@pytest.mark.parametrize(("count", "reached"), [(40, True), (41, False)])
def test_so_many_links_and_no_more(count: int, reached: bool) -> None:
    links = {b"%d" % n: b"%d" % (n + 1) for n in range(count)}
    source = Memory(links, b"%d" % count)
    if reached:
        assert resolve(source, b"0").kind is Kind.FILE
    else:
        with pytest.raises(UnknownPackageError):
            resolve(source, b"0")


def test_doubling_links_do_not_take_forever() -> None:
    """Each link names the next one twice: a walk without a limit takes 2**60 steps."""
    links = {b"%d" % n: b"%d/../%d" % (n + 1, n + 1) for n in range(60)}
    with pytest.raises(UnknownPackageError):
        resolve(Memory(links, b"60"), b"0")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with the same links in both layouts."""
    with quick_place(tmp_path_factory.mktemp("resolve")) as place:
        with Tree(place / "store" / NAME, Random(1)) as tree:
            describe(tree, "links", "1")
            tree.file(b"bin/tool", b"a tool\n", 0o755)
            for path, target in LINKS.items():
                tree.symlink(path, target)
        (place / "outside").mkdir()
        initialise(place / "store")
        migrate(place / "store", Way())
        yield place / "store"
        remove(place / "store")


@pytest.fixture(scope="module")
def layouts(store: Path) -> Iterator[tuple[PackageSource, PackageSource]]:
    root = PackageStore.open(store).root  # its descriptors serve both as long as it lives
    yield FileLevelPackage(root.packages, root.objects, NAME), LegacyPackage(root.fd, NAME)
    root.phase()


@pytest.mark.parametrize("path", [*FOUND, *NOT_FOUND, *ODD], ids=repr)
def test_both_layouts_give_the_same_answer(
    layouts: tuple[PackageSource, PackageSource], path: bytes
) -> None:
    assert answer(layouts[0], path) == answer(layouts[1], path)
    if path in FOUND:
        assert answer(layouts[0], path)[0] == FOUND[path]
    elif path in NOT_FOUND:
        assert answer(layouts[0], path)[0] == "UnknownPackageError"


def answer(source: PackageSource, path: bytes) -> tuple[object, ...]:
    try:
        entry = resolve(source, path)
    except Exception as error:  # noqa: BLE001 -- whichever it is, it must be the same
        return (type(error).__name__,)
    return entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime_ns


@pytest.mark.parametrize("path", ODD, ids=repr)
def test_an_odd_path_is_no_damage(store: Path, path: bytes) -> None:
    """What a caller asks for is found or not there; it says nothing about the store."""
    package = PackageStore.open(store).get_package(NAME)
    try:
        content = package.read(path)
    except UnknownPackageError:
        assert b"tool" not in path
    else:
        assert content == b"a tool\n"
