"""Archives that are refused: with the reason, and before anything outside is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard

from regrain.errors import ArchiveError, PackageError
from regrain.store.unpack import LIMITS, Limits, unpack
from tests.archives import (
    archive,
    compressed,
    file,
    folder,
    gnu_long,
    header,
    pax,
    record,
    skippable,
    sparse_records,
)
from tests.archives_hostile import HOSTILE
from tests.compare import Snapshot, differences, snapshot


@dataclass(frozen=True, slots=True)
class Scene:
    """A target among things that must stay as they are."""

    place: Path
    before: Snapshot

    def unpack(self, data: bytes, limits: Limits = LIMITS) -> None:
        (self.place / "archive").write_bytes(data)
        source = os.open(self.place / "archive", os.O_RDONLY)
        target = os.open(self.place / "target", os.O_RDONLY | os.O_DIRECTORY)
        fds = len(os.listdir("/proc/self/fd"))
        try:
            unpack(source, target, keep_owner=os.geteuid() == 0, limits=limits)
        finally:
            assert len(os.listdir("/proc/self/fd")) == fds
            os.close(source)
            os.close(target)

    def check_outside(self) -> None:
        assert differences(self.before, snapshot(self.place / "outside"), identity=True) == []
        assert sorted(os.listdir(self.place)) == ["archive", "outside", "target"]
        assert not Path("/etc/evil").exists()
        assert not Path("/evil").exists()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    place = tmp_path / "place"
    outside = place / "outside"
    outside.mkdir(parents=True)
    (outside / "kept").write_bytes(b"as it was\n")
    (place / "target").mkdir()
    made = Scene(place, snapshot(outside))
    yield made
    made.check_outside()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(scene: Scene, name: str) -> None:
    data, why = HOSTILE[name]
    with pytest.raises(ArchiveError, match=why) as caught:
        scene.unpack(data)
    assert isinstance(caught.value, PackageError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [name for name, (data, _) in HOSTILE.items() if data[257:262] == b"ustar"]
)
def test_they_are_refused_in_zstd_too(scene: Scene, name: str) -> None:
    data, why = HOSTILE[name]
    with pytest.raises(ArchiveError, match=why):
        scene.unpack(compressed(data))


LIMITED = {
    "entries": (archive(file(b"a"), file(b"b")), {"entries_max": 3}, "too many entries"),
    "implied entries": (archive(file(b"a/b/c")), {"entries_max": 4}, "too many entries"),
    "bytes": (archive(file(b"a", bytes(5000))), {"bytes_max": 5000}, "too large"),
    "ratio": (
        compressed(archive(file(b"a", bytes(1 << 20)))),
        {"ratio_max": 100, "ratio_free_bytes": 1 << 16},
        "decompression bomb",
    ),
    "depth": (archive(folder(b"a/b/c")), {"depth_max": 2}, "too deep"),
    "path": (archive(file(b"a" * 20)), {"path_bytes_max": 19}, "too long"),
    "gnu path": (
        archive(gnu_long(b"a/" * 200), header(b"a")),
        {"path_bytes_max": 300},
        "impossible size",
    ),
    "extended header": (
        archive(pax((b"comment", b"x" * 2000)), file(b"f")),
        {"header_bytes_max": 1000},
        "impossible size",
    ),
    "window": (
        compressed(archive(file(b"a", os.urandom(1 << 20)))),
        {"window_bytes_max": 1 << 19},
        "its window is",
    ),
}


@pytest.mark.parametrize("name", LIMITED)
def test_limits(scene: Scene, name: str) -> None:
    data, limits, why = LIMITED[name]
    with pytest.raises(ArchiveError, match=why):
        scene.unpack(data, LIMITS._replace(**limits))


@pytest.mark.parametrize("name", ["entries", "implied entries", "bytes", "depth", "path"])
def test_what_is_just_within_a_limit_is_taken(scene: Scene, name: str) -> None:
    data, limits, _ = LIMITED[name]
    # the stream of "bytes" is three headers, a manifest, its data and the end
    more = {"bytes_max": len(data)} if "bytes_max" in limits else {}
    scene.unpack(data, LIMITS._replace(**{key: value + 1 for key, value in limits.items()} | more))


def test_a_bomb_of_zeroes_is_refused_early(scene: Scene) -> None:
    """A gigabyte in some tens of kilobytes: it must not be written first."""
    size = 1 << 30
    head = archive(end=header(b"bomb", size=size))
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    data = compressor.compress(head)
    for _ in range(size >> 20):
        data += compressor.compress(bytes(1 << 20))
    data += compressor.flush()
    with pytest.raises(ArchiveError, match="decompression bomb"):
        scene.unpack(data)
    assert (scene.place / "target" / "bomb").stat().st_size < 200 << 20


def test_a_window_is_refused_before_it_is_allocated(scene: Scene) -> None:
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"
    with pytest.raises(ArchiveError, match="its window is"):
        scene.unpack(frame)


def test_a_skippable_frame_in_front_hides_nothing(scene: Scene) -> None:
    data = skippable(archive(file(b"hidden"))) + compressed(archive(file(b"seen")))
    scene.unpack(data)
    assert sorted(os.listdir(scene.place / "target")) == ["manifest.toml", "seen"]


def test_a_record_counts_its_own_length() -> None:
    """The generator is right, so that it is not refused for its own mistakes."""
    assert record(b"path", b"a") == b"9 path=a\n"
    for size in range(200):
        made = record(b"k", b"x" * size)
        assert made.startswith(b"%d k=" % len(made))


def test_a_sparse_name_is_the_only_one_used(scene: Scene) -> None:
    data = archive(
        pax((b"path", b"d/GNUSparseFile.7/f"), *sparse_records(b"d/f", 4)),
        header(b"x", b"0", 516),
        (b"1\n0\n4\n".ljust(512, b"\0") + b"data").ljust(1024, b"\0"),
    )
    scene.unpack(data)
    assert (scene.place / "target/d/f").read_bytes() == b"data"


def test_a_target_that_is_not_empty_is_not_used(scene: Scene) -> None:
    (scene.place / "target" / "there").touch()
    with pytest.raises(OSError, match="not empty"):
        scene.unpack(archive())
    assert os.listdir(scene.place / "target") == ["there"]
