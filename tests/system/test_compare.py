"""The comparison finds each kind of difference, and none where there is none."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests import awkward
from tests.compare import Snapshot, allocated_bytes, compare, differences, snapshot
from tests.trees import ACL_ACCESS, BASE_TIME_NS, Abilities, Tree, acl

BLOCK = 1 << 16


def build(root: Path, able: Abilities) -> None:
    with Tree(root, Random(7)) as tree:
        tree.file(b"file", b"content\n")
        tree.file(b"other", b"other\n", 0o600)
        tree.file(b"group/first", b"linked\n")
        tree.link(b"group/second", b"group/first")
        tree.link(b"group/third", b"group/first")
        tree.symlink(b"link", b"file")
        tree.directory(b"directory", 0o750)
        tree.sparse(b"sparse", [(BLOCK, bytes(range(256)) * 256)], 3 * BLOCK)
        tree.file(b"\xff\n", b"raw name\n")
        tree.chain(b"deep", [b"d" * 200] * 25, b"far down\n")
        if able.user_xattrs:
            tree.file(b"marked", b"marked\n", xattrs={"user.a": b"1"})


def rewrite(path: Path) -> None:
    """Change one byte, keep size and times."""
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with path.open("r+b") as stream:
        stream.write(b"C")
    os.utime(path, ns=times)


def keep_time(path: Path, act: Callable[[], object]) -> None:
    """Change names in a directory without its time telling."""
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    act()
    os.utime(path, ns=times)


def part_group(root: Path) -> None:
    """Give one name of a group its own inode, everything else equal."""
    path = root / "group/third"
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    data = path.read_bytes()

    def act() -> None:
        path.unlink()
        path.write_bytes(data)
        path.chmod(0o644)
        os.utime(path, ns=times)

    keep_time(path.parent, act)


def replace_link(root: Path) -> None:
    status = (root / "link").lstat()

    def act() -> None:
        (root / "link").unlink()
        (root / "link").symlink_to("filf")
        os.utime(root / "link", ns=(0, status.st_mtime_ns), follow_symlinks=False)

    keep_time(root, act)


def retype(root: Path) -> None:
    def act() -> None:
        (root / "directory").rmdir()
        (root / "directory").write_bytes(b"")

    keep_time(root, act)


def touch_far_down(root: Path) -> None:
    subprocess.run(["find", root, "-name", "bottom", "-execdir", "touch", "{}", "+"], check=True)


def fill_hole(root: Path) -> None:
    path = root / "sparse"
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with path.open("r+b") as stream:
        stream.write(bytes(4096))
    os.utime(path, ns=times)


CHANGES: dict[str, tuple[Callable[[Path], object], bytes, str]] = {
    "bytes": (lambda root: rewrite(root / "file"), b"file", "digest"),
    "size": (lambda root: os.truncate(root / "other", 3), b"other", "size 6 != 3"),
    "mode": (lambda root: (root / "file").chmod(0o664), b"file", "mode 0644 != 0664"),
    "set-id": (lambda root: (root / "file").chmod(0o4644), b"file", "mode 0644 != 4644"),
    "directory mode": (lambda root: (root / "directory").chmod(0o755), b"directory", "mode 0750"),
    "root mode": (lambda root: root.chmod(0o700), b"", "the root: mode 0755 != 0700"),
    "nanosecond": (
        lambda root: os.utime(root / "other", ns=(0, (root / "other").stat().st_mtime_ns + 1)),
        b"other",
        "mtime_ns",
    ),
    "link time": (
        lambda root: os.utime(root / "link", ns=(0, 0), follow_symlinks=False),
        b"link",
        "mtime_ns",
    ),
    "root time": (lambda root: os.utime(root, ns=(0, BASE_TIME_NS - 1)), b"", "the root: mtime_ns"),
    "far down": (touch_far_down, b"deep/" + b"/".join([b"d" * 200] * 25) + b"/bottom", "mtime_ns"),
    "target": (replace_link, b"link", "target b'file' != b'filf'"),
    "type": (retype, b"directory", "type directory != file"),
    "group": (part_group, b"group/third", "group b'group/first' != None"),
    "missing": (
        lambda root: keep_time(root, (root / "file").unlink),
        b"file",
        "missing (file)",
    ),
    "unexpected": (
        lambda root: keep_time(root, (root / "new").mkdir),
        b"new",
        "unexpected (directory)",
    ),
}


@pytest.fixture
def pair(workplace: Path, able: Abilities) -> tuple[Path, Path]:
    for name in ("left", "right"):
        build(workplace / name, able)
    return workplace / "left", workplace / "right"


def test_equal_trees_have_no_differences(pair: tuple[Path, Path]) -> None:
    assert compare(*pair, holes=True) == []
    assert len(snapshot(pair[0])) > 35


@pytest.mark.parametrize("change", CHANGES)
def test_finds_a_change_and_nothing_else(pair: tuple[Path, Path], change: str) -> None:
    act, wanted, words = CHANGES[change]
    act(pair[1])
    said = compare(*pair)
    assert len([line for line in said if words in line]) == 1, said
    left, right = snapshot(pair[0]), snapshot(pair[1])
    changed = {
        path
        for path in left.keys() | right.keys()
        if differences(only(left, path), only(right, path))
    }
    assert changed == {wanted}


def only(tree: Snapshot, path: bytes) -> Snapshot:
    return {path: tree[path]} if path in tree else {}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("user.a", b"2", "xattr 'user.a' b'1' != b'2'"),
        ("user.b", b"", "xattr 'user.b' unexpected"),
        ("user.a", None, "xattr 'user.a' missing"),
        (ACL_ACCESS, acl(), f"xattr '{ACL_ACCESS}' unexpected"),
    ],
)
def test_finds_attributes(
    pair: tuple[Path, Path], able: Abilities, name: str, value: bytes | None, words: str
) -> None:
    if not able.user_xattrs or not able.acls:
        pytest.skip("no user attributes or access lists on this file system")
    if value is None:
        os.removexattr(pair[1] / "marked", name)
    else:
        os.setxattr(pair[1] / "marked", name, value)
    assert any(words in line for line in compare(*pair))


@pytest.mark.root
def test_finds_owners_and_attributes_of_links(pair: tuple[Path, Path], able: Abilities) -> None:
    os.chown(pair[1] / "link", 5, 6, follow_symlinks=False)
    assert compare(*pair) == ["b'link': uid 0 != 5", "b'link': gid 0 != 6"]
    if not able.trusted_xattrs:
        pytest.skip("no trusted attributes on this file system")
    os.setxattr(pair[0] / "link", "trusted.t", b"x", follow_symlinks=False)
    assert "b'link': xattr 'trusted.t' missing" in compare(*pair)


def test_holes_and_identity_are_compared_when_asked(pair: tuple[Path, Path]) -> None:
    fill_hole(pair[1])
    assert compare(*pair) == []
    assert [line for line in compare(*pair, holes=True) if "holes lost" in line]
    assert [line for line in compare(*pair, identity=True) if "b'file': inode" in line]
    assert compare(pair[0], pair[0], identity=True) == []


def test_a_snapshot_can_be_kept(pair: tuple[Path, Path]) -> None:
    before = pickle.loads(pickle.dumps(snapshot(pair[0])))
    assert differences(before, snapshot(pair[0]), identity=True) == []
    rewrite(pair[0] / "file")
    assert len(differences(before, snapshot(pair[0]), identity=True)) == 1


def test_allocated_bytes_count_an_inode_once(pair: tuple[Path, Path]) -> None:
    tree = snapshot(pair[0])
    du = subprocess.run(["du", "-s", "-B1", pair[0]], capture_output=True, check=True)
    assert allocated_bytes(tree) == int(du.stdout.split()[0])
    assert allocated_bytes(tree, tree) == allocated_bytes(tree)


def test_cp_agrees_about_every_awkward_subject(workplace: Path, seed: int, able: Abilities) -> None:
    compared = 0
    for subject in awkward.AWKWARD.keys() - {"deep", "very-deep"}:  # too deep for cp
        package = awkward.add_awkward(workplace / "store", subject, seed, able)
        copy = workplace / subject
        subprocess.run(["cp", "-a", "--sparse=always", package.path, copy], check=True)
        assert compare(package.path, copy, holes=True) == [], subject
        compared += 1
    assert compared == 12


def test_stores_follow_from_the_seed(workplace: Path, seed: int, able: Abilities) -> None:
    first = awkward.make_legacy_store(workplace / "a", seed, able)
    second = awkward.make_legacy_store(workplace / "b", seed, able)
    assert {len(name) for name in first} == {32, 64}
    assert first.keys() == second.keys()
    for name, package in first.items():
        assert compare(package.path, second[name].path) == [], package.what
