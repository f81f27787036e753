"""Frames: what is written is read back, what is broken in any way is refused, and at no cost."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import zstandard
from blake3 import blake3

from regrain import disk
from regrain.store import frames
from regrain.store.frames import Compression, FrameError, Packer

BLOCK = 4096
MIB = 1 << 20


def packer(level: int = 3, min_saving: float = 0.0) -> Packer:
    return Packer(Compression(level, min_saving), BLOCK)


def text(size: int, seed: int = 1) -> bytes:
    """Bytes that shrink to about a third."""
    rng = Random(seed)
    words = [bytes(rng.choices(b"abcdefgh", k=rng.randint(2, 9))) for _ in range(200)]
    made = b" ".join(rng.choices(words, k=size // 3))
    return made[:size]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    fds: list[int] = []

    def make(content: bytes) -> int:
        fds.append(disk.create(f"file-{len(fds)}", os.open(tmp_path, os.O_RDONLY)))
        os.write(fds[-1], content)
        return fds[-1]

    yield make
    for fd in fds:
        os.close(fd)


def frame_of(content: bytes, **options: object) -> bytes:
    options = {"level": 3, "write_checksum": True, **options}
    return zstandard.ZstdCompressor(**options).compress(content)  # type: ignore[arg-type]


SIZES = [BLOCK + 1, 100_000, MIB - 1, MIB, MIB + 1, 5 * MIB + 7]


@pytest.mark.parametrize("size", SIZES)
def test_a_round_trip(opened: Callable[[bytes], int], size: int) -> None:
    content = text(size)
    source, target, back = opened(content), opened(b""), opened(b"")
    assert packer().pack_file(source, size, target)
    assert os.fstat(target).st_size < size
    assert frames.content_size(target) == size
    assert frames.hash_frame(target) == (blake3(content).hexdigest(), size)
    assert frames.pour(target, back) == (blake3(content).hexdigest(), size)
    assert os.pread(back, size + 1, 0) == content
    fd, arrived = frames.unpacked(target)
    with disk.Closing(fd):
        assert os.read(fd, size + 1) == content
        assert arrived == (blake3(content).hexdigest(), size)
        assert not os.get_inheritable(fd)
    assert zstandard.ZstdDecompressor().decompress(os.pread(target, size, 0)) == content


def test_both_ways_of_packing_agree(opened: Callable[[bytes], int]) -> None:
    content, made = text(300_000), opened(b"")
    one = packer()
    assert one.pack(text(5 * BLOCK, 2)) is not None  # the library's memory is used again
    assert not one.pack_file(opened(Random(3).randbytes(2 * MIB)), 2 * MIB, opened(b""))
    packed = one.pack(content)
    assert packed is not None
    assert one.pack_file(opened(content), len(content), made)
    assert os.pread(made, MIB, 0) == packed or frames.hash_frame(made)[1] == len(content)
    again = opened(packed)
    assert frames.hash_frame(again) == frames.hash_frame(made)


@pytest.mark.parametrize(
    ("size", "min_saving", "size_max"),
    [
        (1, 0.0, 0),
        (BLOCK, 0.0, 0),
        (BLOCK + 1, 0.0, BLOCK),
        (2 * BLOCK, 0.0, BLOCK),
        (10 * BLOCK, 0.05, 9 * BLOCK),
        (10 * BLOCK, 0.5, 5 * BLOCK),
        (10 * BLOCK, 0.51, 4 * BLOCK),
        (2 * BLOCK, 0.9, 0),
    ],
)
def test_when_it_pays(size: int, min_saving: float, size_max: int) -> None:
    assert packer(min_saving=min_saving).size_max(size) == size_max


def test_what_does_not_shrink_is_not_packed(opened: Callable[[bytes], int]) -> None:
    for size in (3 * BLOCK, 3 * MIB):
        content = Random(1).randbytes(size)
        target = opened(b"")
        assert not packer().pack_file(opened(content), size, target)
        assert os.fstat(target).st_size < size
        assert packer().pack(content) is None


def test_a_file_that_shrinks_while_it_is_packed(opened: Callable[[bytes], int]) -> None:
    with pytest.raises(disk.SourceReadError):
        packer().pack_file(opened(text(2 * MIB)), 3 * MIB, opened(b""))


def broken(content: bytes) -> dict[str, bytes]:
    whole = frame_of(content)
    other = frame_of(content[:-1] + b"!")
    trained = zstandard.train_dictionary(4096, [text(900, n) for n in range(64)])
    return {
        "empty": b"",
        "no frame": b"no frame at all" * 9,
        "a byte behind": whole + b"\0",
        "two frames": whole + whole,
        "a skippable frame behind": whole + b"\x50\x2a\x4d\x18\4\0\0\0abcd",
        "a skippable frame before": b"\x50\x2a\x4d\x18\4\0\0\0abcd" + whole,
        "a wrong checksum": whole[:-4] + other[-4:],
        "no checksum": frame_of(content, write_checksum=False),
        "no size": frame_of(content, write_content_size=False),
        "a dictionary": frame_of(content, dict_data=trained),
        "a size too small": resized(whole, len(content), len(content) - 1),
        "a size too large": resized(whole, len(content), len(content) + 1),
    }


def resized(frame: bytes, size: int, said: int) -> bytes:
    """The same frame with another size in its header."""
    for width in (8, 4):
        if (raw := size.to_bytes(width, "little")) in frame[:18]:
            return frame.replace(raw, said.to_bytes(width, "little"), 1)
    return frame.replace((size - 256).to_bytes(2, "little"), (said - 256).to_bytes(2, "little"), 1)


@pytest.mark.parametrize("size", [20_000, 3 * MIB])
def test_what_is_broken_is_refused(opened: Callable[[bytes], int], size: int) -> None:
    wrong = []
    for what, raw in broken(text(size)).items():
        fd = opened(raw)
        try:
            frames.hash_frame(fd)
        except FrameError as error:
            wrong += [] if error.errno == errno.EBADMSG else [f"{what}: {error}"]
        else:
            wrong.append(f"{what}: taken")
        with pytest.raises(disk.SourceReadError):
            frames.pour(fd, opened(b""))
        with pytest.raises((disk.SourceReadError, FrameError)):
            frames.unpacked(fd)
    assert wrong == []


@pytest.mark.parametrize("size", [2_000, 2 * MIB])
def test_a_frame_that_is_cut_off_is_refused(opened: Callable[[bytes], int], size: int) -> None:
    whole = frame_of(text(size))
    lengths = range(len(whole)) if size < MIB else range(1, len(whole), len(whole) // 50)
    for length in (*lengths, len(whole) - 1, len(whole) - 4):
        fd = opened(whole[:length])
        with pytest.raises(FrameError):
            frames.hash_frame(fd)
        os.truncate(fd, 0)


def test_garbled_frames_never_give_wrong_bytes(opened: Callable[[bytes], int], seed: int) -> None:
    rng = Random(f"{seed}:frames")
    for size in (6_000, MIB + 5000):
        content = text(size)
        whole, digest = frame_of(content), blake3(content).hexdigest()
        for _ in range(150 if size < MIB else 30):
            raw = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            fd = opened(bytes(raw))
            try:
                found = frames.hash_frame(fd)
            except FrameError:
                continue
            assert found == (digest, size)
            os.truncate(fd, 0)


def bomb(size: int, said: int) -> bytes:
    """A frame of so many zeros, in blocks of four bytes, that calls itself ``said`` long."""
    head = b"\x28\xb5\x2f\xfd" + bytes([0xC0 | 4]) + bytes([0x38]) + said.to_bytes(8, "little")
    block = (1 << 1 | (128 << 10) << 3).to_bytes(3, "little") + b"\0"
    count = size >> 17
    return (
        head
        + block * (count - 1)
        + (int.from_bytes(block[:3], "little") | 1).to_bytes(3, "little")
        + b"\0"
        + bytes(4)
    )


@pytest.mark.parametrize("said", [100_000, 5 * MIB])
def test_a_bomb_costs_nothing(opened: Callable[[bytes], int], said: int) -> None:
    """A gigabyte in 32 KiB, which promises less: what comes out ends where that is over."""
    raw = bomb(1 << 30, said)
    assert zstandard.get_frame_parameters(raw).content_size == said
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    target = opened(b"")
    with pytest.raises(disk.SourceReadError):
        frames.pour(opened(raw), target)
    assert os.fstat(target).st_size <= said
    assert os.fstat(target).st_blocks * 512 <= 5 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10


def test_large_content_takes_no_memory(opened: Callable[[bytes], int]) -> None:
    size = 200 * MIB
    fd = opened(frame_of(bytes(size)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert frames.hash_frame(fd)[1] == size
    found, _ = frames.unpacked(fd)  # on disk, without a name
    with disk.Closing(found):
        assert os.fstat(found).st_size == size
        assert os.fstat(found).st_nlink == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10


def test_holes_are_seen(opened: Callable[[bytes], int]) -> None:
    fd = opened(b"x" * BLOCK)
    assert not frames.has_holes(fd, BLOCK)
    os.ftruncate(fd, 100 * BLOCK)
    assert frames.has_holes(fd, 100 * BLOCK)
