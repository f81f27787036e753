"""Hypothesis strategies: names, paths and whole trees as a package may have them."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from regrain.model.digest import EMPTY
from regrain.model.entry import Entry, Kind

TRICKY = (
    b"a",
    b"a-",
    b"a.b",
    b"a0",
    b"A",
    b"b",
    b" ",
    b"\n",
    b"\r",
    b'"',
    b"\\",
    b"'",
    b"\x01",
    b"\x7f",
    b"\xff",
    b"\xc3\xa9",
    b"\xe9",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    b"\xf0\x9f\x98\x80",
    b"...",
    b"]}",
    b",",
    b"{}",
    b"x" * 255,
    b"\xff" * 255,
)
"""Names that sort, encode or print oddly."""

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
package_hashes = st.one_of(digests, st.binary(min_size=16, max_size=16).map(bytes.hex))
names = st.one_of(
    st.sampled_from(TRICKY),
    st.binary(min_size=1, max_size=12).filter(
        lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
    ),
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
targets = st.binary(min_size=1, max_size=40).filter(lambda target: b"\0" not in target)
xattr_names = st.one_of(
    st.sampled_from([b"user.a", b"user.b", b"security.capability", b"user.\xff"]),
    st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name),
)
xattrs = st.one_of(
    st.none(), st.dictionaries(xattr_names, st.binary(max_size=30), min_size=1, max_size=3)
)
times_ns = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**80), 2**80),
    st.sampled_from([0, -1, 2**63, 2**64, -(2**63) - 1, 2**62 * 10**9]),
)


@st.composite
def entries(draw: st.DrawFn, path: bytes, kind: Kind) -> Entry:
    """An entry of any metadata, without link groups."""
    size = draw(st.one_of(st.just(0), st.integers(1, 2**55)))
    is_file = kind is Kind.FILE
    return Entry(
        path=path,
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 2)),
        gid=draw(st.integers(0, 2**32 - 2)),
        mtime_ns=draw(times_ns),
        digest=(draw(digests) if size else EMPTY) if is_file else "",
        size=size if is_file else 0,
        target=draw(targets) if kind is Kind.SYMLINK else b"",
        xattrs=draw(xattrs),
    )


@st.composite
def any_entries(draw: st.DrawFn, linked: tuple[Kind, ...] = (Kind.FILE, Kind.SYMLINK)) -> Entry:
    """An entry of any kind at any path, some of the kinds ``linked`` in a link group."""
    kind = draw(st.sampled_from(list(Kind)))
    path = draw(paths)
    entry = draw(entries(path, kind))
    if kind in linked and draw(st.booleans()):
        return replace(entry, hardlink=draw(paths))
    return entry


@st.composite
def trees(draw: st.DrawFn, entries_max: int = 14) -> list[Entry]:
    """A whole tree, root first, in the order of raw path bytes."""
    made = {b"": draw(entries(b"", Kind.DIRECTORY))}
    directories = [b""]
    for _ in range(draw(st.integers(0, entries_max))):
        parent = draw(st.sampled_from(directories))
        name = draw(names)
        path = parent + b"/" + name if parent else name
        if path in made:
            continue
        kind = draw(st.sampled_from(list(Kind)))
        made[path] = draw(entries(path, kind))
        if kind is Kind.DIRECTORY:
            directories.append(path)
    return _with_groups(draw, [made[path] for path in sorted(made)])


def _with_groups(draw: st.DrawFn, tree: list[Entry]) -> list[Entry]:
    """Make a link group of some files: the later ones repeat the first one's facts."""
    files = [at for at, entry in enumerate(tree) if entry.kind is Kind.FILE]
    if len(files) > 1 and draw(st.booleans()):
        first = tree[files[0]]
        for at in files[1:]:
            if draw(st.booleans()):
                tree[at] = replace(first, path=tree[at].path, hardlink=first.path)
    return tree
