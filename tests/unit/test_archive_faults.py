"""Archives cut anywhere, bytes turned over, disks that fail, memory, users without rights."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrain.errors import ArchiveError
from regrain.store.unpack import Limits, Unpacked, unpack
from tests.archives import (
    ARCHIVERS,
    BLOCK,
    GNU,
    archive,
    compressed,
    file,
    folder,
    gnu_long,
    hard_link,
    header,
    octal,
    padded,
    pax,
    sparse_records,
    sparse_tail,
    symlink,
    with_good_checksums,
)
from tests.archives_hostile import HOSTILE
from tests.compare import Snapshot, compare, differences, snapshot
from tests.conftest import remove
from tests.faults.small import quick_place
from tests.trees import Abilities, Tree, describe

ROOT = os.geteuid() == 0
SMALL_LIMITS = Limits(bytes_max=64 << 20, entries_max=10_000)
LONG = b"long/" + b"n" * 150
EVERYTHING = archive(
    folder(b"./", mode=octal(0o750, 8)),
    folder(b"./d/"),
    pax((b"mtime", b"1700000000.5"), (b"SCHILY.xattr.user.a", b"value")),
    file(b"./d/f", b"some content\n" * 60),
    hard_link(b"g", b"d/f"),
    symlink(b"l", b"../../outside"),
    gnu_long(LONG),
    header(LONG[:100], b"0", 3, magic=GNU) + padded(b"abc"),
    gnu_long(b"d/" + b"t" * 120, b"K"),
    header(b"k", b"2", target=(b"d/" + b"t" * 120)[:100], magic=GNU),
    header(b"s", b"S", 8, magic=GNU, tail=sparse_tail([(0, 4), (4096, 4)], 9000))
    + padded(b"12345678"),
    pax(*sparse_records(b"p", 5000)),
    header(b"GNUSparseFile.1/p", b"0", 520) + padded(b"2\n0\n4\n4000\n4\n") + padded(b"abcdefgh"),
)
"""Small, with every kind of header there is."""


@contextmanager
def scene() -> Iterator[Path]:
    """A target, and beside it what must stay as it is."""
    with quick_place(Path("/tmp")) as place:
        (place / "outside").mkdir()
        (place / "outside" / "kept").write_bytes(b"kept\n")
        before = snapshot(place / "outside")
        yield place
        assert differences(before, snapshot(place / "outside"), identity=True) == []
        assert set(os.listdir(place)) <= {"outside", "target", "archive"}


def attempt(place: Path, data: bytes) -> Snapshot | None:
    """The tree, or None where the archive was refused; anything else fails the test."""
    remove(place / "target")
    (place / "target").mkdir()
    (place / "archive").write_bytes(data)
    try:
        unpack_file(place)
    except ArchiveError:
        return None
    return snapshot(place / "target")


def unpack_file(place: Path) -> Unpacked:
    source = os.open(place / "archive", os.O_RDONLY)
    target = os.open(place / "target", os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        return unpack(source, target, keep_owner=ROOT, limits=SMALL_LIMITS)
    finally:
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(source)
        os.close(target)


def test_every_truncation_is_noticed() -> None:
    packed = compressed(EVERYTHING)
    with scene() as place:
        whole = attempt(place, EVERYTHING)
        assert whole is not None
        assert len(whole) == 11
        for size in range(0, len(EVERYTHING), 97):
            assert attempt(place, EVERYTHING[:size]) is None, size
        for size in (*range(0, len(packed), 3), len(packed) - 1):
            assert attempt(place, packed[:size]) is None, size
        for end in (1, 2, 20):  # blocks of zeroes behind the end are nothing
            found = attempt(place, EVERYTHING + bytes(end * BLOCK))
            assert found is not None
            assert differences(whole, found) == []


def test_a_flipped_byte_in_zstd_is_noticed_or_changes_nothing(seed: int) -> None:
    rng = Random(seed)
    packed = compressed(EVERYTHING)
    with scene() as place:
        whole = attempt(place, EVERYTHING)
        assert whole is not None
        refused = 0
        for at in range(0, len(packed), 2):
            turned = bytearray(packed)
            turned[at] ^= rng.randrange(1, 256)
            found = attempt(place, bytes(turned))
            refused += found is None
            assert found is None or differences(whole, found) == [], at
        assert refused > len(packed) * 0.45


@pytest.mark.parametrize("part", range(4))
def test_flipped_bytes_in_tar_end_in_a_refusal_or_a_tree(seed: int, part: int) -> None:
    """Even where the checksums are right: nothing but a refusal or a tree inside the target."""
    rng = Random(f"{seed}:{part}")
    interesting = [at for at in range(len(EVERYTHING)) if EVERYTHING[at]]
    ends = [0, 0]
    with scene() as place:
        for _ in range(300):
            turned = bytearray(EVERYTHING)
            for _ in range(rng.randrange(1, 4)):
                at = rng.choice(interesting) if rng.random() < 0.8 else rng.randrange(len(turned))
                turned[at] = rng.choice(
                    (0, 0x20, 0x2F, 0x2E, 0x30, 0x37, 0x80, 0xFF, turned[at] ^ 1)
                )
            data = with_good_checksums(bytes(turned)) if rng.random() < 0.8 else bytes(turned)
            ends[attempt(place, data) is None] += 1
    assert min(ends) > 10  # both happened, so that it was worth it


def test_a_wrong_bit_in_any_header_is_refused() -> None:
    plain = archive(folder(b"d"), file(b"d/f"), symlink(b"l", b"x"))
    with scene() as place:
        whole = attempt(place, plain)
        assert whole is not None
        for start in (0, 2, 3, 5):  # the blocks that are headers
            for at in range(start * BLOCK, (start + 1) * BLOCK, 7):
                turned = bytearray(plain)
                turned[at] ^= 4
                found = attempt(place, bytes(turned))
                assert found is None or differences(whole, found) == [], at


blocks = st.sampled_from(
    [
        *(EVERYTHING[at : at + BLOCK] for at in range(0, len(EVERYTHING), BLOCK)),
        *(data[1024:1536] for data, _ in HOSTILE.values() if len(data) > 2000),
    ]
)


@settings(max_examples=150)
@given(st.lists(st.one_of(blocks, st.binary(min_size=BLOCK, max_size=BLOCK)), max_size=8))
def test_any_blocks_in_any_order(found: list[bytes]) -> None:
    with scene() as place:
        attempt(place, archive(*found))


def test_an_archive_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "archive").mkdir()
    with pytest.raises(ArchiveError, match="cannot read the archive: Is a directory"):
        unpack_file(tmp_path)


def test_a_target_that_fails_is_no_fault_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "archive").write_bytes(archive(file(b"d/large", os.urandom(300_000))))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="large") as caught:
            unpack_file(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == b"d/large"


def test_a_time_the_target_cannot_hold_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    data = archive(pax((b"mtime", b"%d" % (1 << 62))), file(b"f"))
    (tmp_path / "archive").write_bytes(data)
    with pytest.raises(OSError, match="cannot hold a modification time") as caught:
        unpack_file(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EOVERFLOW, b"f")


SCRIPT = """
import os, resource, sys
from regrain.store.unpack import unpack
source, target, user = map(int, sys.argv[1:])
if user:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
done = unpack(source, target, keep_owner=os.geteuid() == 0)
print(done.entries, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def run_apart(source: Path, target: Path, user: int = 0) -> tuple[int, int]:
    """Unpack in a process of its own; returns entries and how much memory it took, in KiB.

    Args:
        source: The archive.
        target: Where to.
        user: Who to become, when all modules are read; 0 for nobody else.
    """
    reading, writing = os.open(source, os.O_RDONLY), os.open(target, os.O_RDONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(reading), str(writing), str(user)],
            pass_fds=(reading, writing),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 0, done.stderr
    entries, memory = done.stdout.split()
    return int(entries), int(memory)


@pytest.mark.parametrize("pack", [bytes, compressed], ids=["plain", "zstd"])
def test_memory_does_not_grow_with_the_archive(tmp_path: Path, pack: type[bytes]) -> None:
    data = archive(
        file(b"large", os.urandom(1 << 20) * 64),
        *(folder(b"d/%d" % number) for number in range(8000)),
    )
    (tmp_path / "archive").write_bytes(pack(data))
    (tmp_path / "target").mkdir()
    entries, memory = run_apart(tmp_path / "archive", tmp_path / "target")
    assert entries == 8004
    assert memory < 24 << 10


@pytest.mark.root
def test_without_rights_all_belongs_to_who_unpacks(
    tmp_path: Path, seed: int, able: Abilities
) -> None:
    with Tree(tmp_path / "tree", Random(seed)) as tree:
        describe(tree, "made", "1.0")
        tree.file(b"set-id", b"x", 0o4755, owner=(5, 6))
        tree.directory(b"shut", 0o000, owner=(5, 6))
        tree.file(b"shut/inside", b"x", 0o000)
        tree.directory(b"shut/inner", 0o700)
        tree.directory(b"read-only", 0o555)
        tree.file(b"read-only/inside", b"y", 0o444)
        tree.directory(b"", 0o500)
        if able.user_xattrs:
            tree.file(b"noted", b"z", 0o400, xattrs={"user.note": b"kept"})
    ARCHIVERS[0].pack(tmp_path / "tree", tmp_path / "archive")
    target = tmp_path / "target"
    target.mkdir()
    nobody = 65534
    os.chown(target, nobody, nobody)
    entries, _ = run_apart(tmp_path / "archive", target, nobody)
    assert entries == len(snapshot(target))
    found = compare(tmp_path / "tree", target)
    assert all(" uid " in line or " gid " in line for line in found), found
    assert {(e.uid, e.gid) for e in snapshot(target).values()} == {(nobody, nobody)}
    assert (target / "set-id").stat().st_mode & 0o7777 == 0o4755
    remove(target)
