"""Changes an input as a fuzzer does; all follows from the seed, so each case can be met again.

Seeds lie in ``seeds/<kind>/``. An input that once found a defect is added there, and so is tried
in every run as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

SEEDS = Path(__file__).parent / "seeds"
SIZE_MAX = 1 << 16

TOKENS = (
    *(b"\0", b"\xff", b"\xff\xfe", b"\n", b"\r\n", b'"', b"\\", b"\\u0000", b"\\ud800", b"{}"),
    *(b"[", b"]", b"{", b"}", b",", b":", b"=", b"'", b'"""', b"#", b"null", b"true", b"false"),
    *(b"-1", b"0", b"1e400", b"-0.0", b"nan", b"inf", b"2147483648", b"9223372036854775807"),
    *(b"9223372036854775808", b"18446744073709551616", b"1" * 5000, b"[" * 3000, b'{"a":' * 3000),
    *(b"../", b"/", b"..", b"/etc/passwd", b"0777", b"7777", b"\x28\xb5\x2f\xfd", b"ustar", b" "),
    *(b"1979-05-27T07:32:00Z", b"a.b.c.d=1\n", b"[[a]]\n", b"\x1b[2J", "\u2028".encode()),
)
"""Pieces that mean something in one of the formats, or to those who read carelessly."""


def seeds(kind: str) -> list[bytes]:
    """The inputs kept for one kind, by name."""
    found = [path.read_bytes() for path in sorted((SEEDS / kind).iterdir())]
    assert found, kind
    return found


def inputs(kind: str, seed: int, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield the seeds as they are, then ``number`` changed ones, each with a name."""
    known = seeds(kind)
    for place, content in enumerate(known):
        yield f"{kind} {place}", content
    for case in range(number):
        rng = Random(f"{seed} {kind} {case}")
        content = rng.choice(known)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            content = change(content, known, rng)
        yield f"{kind} {seed} {case}", content[:SIZE_MAX]


def change(content: bytes, known: list[bytes], rng: Random) -> bytes:
    """Make one change."""
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice((1, 1, 2, 4, 16, 64, 512)))
    head, middle, tail = content[:start], content[start:end], content[end:]
    other = rng.choice(known)
    at = rng.randrange(len(other) + 1)
    token = rng.choice(TOKENS)
    flipped = bytes(byte ^ (1 << rng.randrange(8)) for byte in middle)
    ways = (
        head,
        head + tail,
        head + middle + middle + tail,
        head + rng.randbytes(len(middle)) + tail,
        head + flipped[:1] + content[start + 1 :],
        head + other[at : at + 512] + tail,
        head + token + tail,
        head + token + middle + tail,
    )
    return rng.choice(ways)
