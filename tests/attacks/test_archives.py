"""Archives that lead a plain unpacker out of its directory; ``add`` refuses every one.

What else is refused, and with which words, is in ``tests/archives_hostile.py``.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from tests.archives import MANIFEST, archive, file, folder, hard_link, header, pax, symlink
from tests.attacks import naive
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.system.calling import call, judge, state
from tests.verbs import Model, make_model

STEPS = "abcdefghijklmnop"
COMPONENT = "d" * 247
BOMB_BYTES = 256 << 20


def chain() -> bytes:
    """Links whose expansion is longer than a path may be: ``realpath`` stops there, unnoticed.

    As in CVE-2025-4517: what is asked is believed to stay inside, and what is written does not.
    """
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as target:

        def put(name: str, kind: bytes, to: str = "", content: bytes = b"") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, to, len(content)
            member.mode = 0o755
            target.addfile(member, io.BytesIO(content))

        put("manifest.toml", tarfile.REGTYPE, content=MANIFEST)
        path = ""
        for step in STEPS:
            put(path + COMPONENT, tarfile.DIRTYPE)
            put(path + step, tarfile.SYMTYPE, COMPONENT)
            path += COMPONENT + "/"
        short = "/".join(STEPS) + "/" + "l" * 254
        put(short, tarfile.SYMTYPE, "../" * len(STEPS))
        put("escape", tarfile.SYMTYPE, short + "/../outside")
        put("escape/evil", tarfile.REGTYPE, content=b"evil\n")
    return made.getvalue()


def evil(outside: Path) -> bool:
    return (outside / "evil").exists()


def overwritten(outside: Path) -> bool:
    return (outside / "kept").read_bytes() != b"as it was\n"


def linked(outside: Path) -> bool:
    return (outside / "kept").stat().st_nlink > 1


EXPLOITS: dict[str, tuple[Callable[[Path], bytes], Callable[[Path], bool]]] = {
    "dots": (lambda _: archive(file(b"../outside/evil")), evil),
    "dots inside": (lambda _: archive(folder(b"a"), file(b"a/../../outside/evil")), evil),
    "absolute": (lambda out: archive(file(os.fsencode(out / "evil"))), evil),
    "absolute in pax": (
        lambda out: archive(pax((b"path", os.fsencode(out / "evil"))), file(b"f")),
        evil,
    ),
    "below a link": (lambda _: archive(symlink(b"l", b"../outside"), file(b"l/evil")), evil),
    "over a link": (
        lambda _: archive(symlink(b"l", b"../outside/evil"), file(b"l", b"evil\n")),
        evil,
    ),
    "hard link out": (lambda _: archive(hard_link(b"l", b"../outside/kept")), linked),
    "hard link written to": (
        lambda _: archive(hard_link(b"l", b"../outside/kept"), file(b"l", b"evil\n")),
        overwritten,
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("archives")
    yield make_model(place)
    remove(place)


@pytest.fixture
def outside(workplace: Path) -> Path:
    path = workplace / "outside"
    path.mkdir()
    (path / "kept").write_bytes(b"as it was\n")
    (workplace / "target").mkdir()
    return path


def unpacked(unpack: Callable[[Path, Path], None], data: bytes, workplace: Path) -> None:
    """Let a plain unpacker do what it can; some members are beyond it."""
    (workplace / "archive").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            unpack(workplace / "archive", workplace / "target")
        except OSError:
            return


def refused(model: Model, data: bytes, workplace: Path, outside: Path) -> None:
    """``add`` refuses it, plain and compressed, and leaves all as it was."""
    before, store = snapshot(outside), state(model.path)
    for content in (data, zstandard.ZstdCompressor(write_checksum=True).compress(data)):
        (workplace / "archive").write_bytes(content)
        judge(call(model.path, ["add", str(workplace / "archive")]), 1)
        assert differences(before, snapshot(outside), identity=True) == []
        assert state(model.path) == store


@pytest.mark.parametrize("name", EXPLOITS)
def test_an_unpacker_that_joins_paths_is_led_out(workplace: Path, outside: Path, name: str) -> None:
    make, happened = EXPLOITS[name]
    assert not happened(outside)
    unpacked(naive.unpack, make(outside), workplace)
    assert happened(outside)


@pytest.mark.parametrize("name", EXPLOITS)
def test_add_is_not(model: Model, workplace: Path, outside: Path, name: str) -> None:
    refused(model, EXPLOITS[name][0](outside), workplace, outside)


def test_an_unpacker_that_asks_where_a_path_leads_is_led_out_too(
    workplace: Path, outside: Path
) -> None:
    unpacked(naive.unpack_checked, EXPLOITS["below a link"][0](outside), workplace)
    assert not evil(outside)
    unpacked(naive.unpack_checked, chain(), workplace)
    assert evil(outside)


def test_add_is_not_by_links_that_are_too_long(
    model: Model, workplace: Path, outside: Path
) -> None:
    refused(model, chain(), workplace, outside)


def test_a_bomb(model: Model, workplace: Path, outside: Path) -> None:
    """A few kilobytes that want hundreds of megabytes of disk, of zeroes or of a hole."""
    head = archive(end=header(b"bomb", size=BOMB_BYTES))
    compressor = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    pieces = [compressor.compress(head)]
    pieces += [compressor.compress(bytes(1 << 20)) for _ in range(BOMB_BYTES >> 20)]
    bomb = b"".join([*pieces, compressor.flush()])
    assert len(bomb) < 100_000
    assert naive.decompress(bomb, BOMB_BYTES) > BOMB_BYTES
    store = state(model.path)
    (workplace / "archive").write_bytes(bomb)
    judge(call(model.path, ["add", str(workplace / "archive")]), 1, "decompression bomb")
    assert state(model.path) == store


def test_a_set_id_program_in_an_archive_lends_no_power(
    model: Model, workplace: Path, outside: Path
) -> None:
    """Its mode is kept in the file list; no inode of the store has it."""
    data = archive(pax((b"path", b"tool")) + file(b"x", b"evil\n", mode=b"0006755\0"))
    unpacked(naive.unpack, data, workplace)
    copied = model.copied(workplace / "store")
    judge(call(copied.path, ["add", str(workplace / "archive")]), 0)
    (workplace / "objects").mkdir()
    left = naive.store_object(workplace / "target" / "tool", workplace / "objects")
    assert stat.S_IMODE(left.stat().st_mode) == 0o6755
    inodes = [path.lstat() for path in copied.path.rglob("*") if "packages" in path.parts]
    inodes += [path.lstat() for path in (copied.path / "objects").rglob("*")]
    assert [status for status in inodes if status.st_mode & 0o6022] == []
