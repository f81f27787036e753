"""Which inodes of the legacy tree become objects, on which file system, and which are copied."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests import awkward, mounts
from tests.command import Regrain
from tests.stores import (
    assert_complete,
    assert_sound,
    checkout_differences,
    is_linked,
    migrate_all,
    object_inodes,
    record,
    statuses,
    text_of,
)
from tests.trees import (
    ACL_ACCESS,
    CAPABILITY,
    LIVE,
    Abilities,
    LegacyPackage,
    Tree,
    acl,
    capability,
    describe,
    package_hash,
)

IMMUTABLE = 0x10
GET_FLAGS, SET_FLAGS = 0x80086601, 0x40086602
PAYLOAD = "opt/pm/live/share/subject"
Build = Callable[[Tree], None]


def one_package(
    store: Path, build: Build, label: str = "subject", *, mode: int = 0o644
) -> LegacyPackage:
    """A package whose manifest can be linked, with the one file in question."""
    name = package_hash(5, label)
    with Tree(store / name, Random(label)) as tree:
        describe(tree, label, "1")
        build(tree)
    return LegacyPackage(name, store / name, label, "1", label)


def plain(mode: int, data: bytes = b"subject\n") -> Build:
    return lambda tree: tree.file(PAYLOAD.encode(), data, mode)


def marked(name: str, value: bytes) -> Build:
    return lambda tree: tree.file(PAYLOAD.encode(), b"subject\n", 0o755, xattrs={name: value})


def owned(uid: int, gid: int) -> Build:
    return lambda tree: tree.file(PAYLOAD.encode(), b"subject\n", 0o644, owner=(uid, gid))


def migrate_one(store: Path, package: LegacyPackage, ingest: str = "auto", **env: str) -> bool:
    """Migrate and check everything; tell whether the subject's inode became an object."""
    regrain = Regrain(store, {"REGRAIN_STORE__INGEST": ingest, **env})
    packages = {package.hash: package}
    migrated = migrate_all(regrain, packages)
    assert_complete(store, packages, migrated.before)
    return is_linked(store, package.path / PAYLOAD)


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600, 0o444, 0o711, 0o640, 0o555, 0o400])
def test_auto_links_what_is_a_carrier_already(no_reflink: Path, mode: int) -> None:
    store = no_reflink / "store"
    assert migrate_one(store, one_package(store, plain(mode)))


@pytest.mark.parametrize("mode", [0o664, 0o666, 0o777, 0o775, 0o4755, 0o2755, 0o1644, 0o6711])
def test_auto_copies_what_has_other_bits(no_reflink: Path, mode: int) -> None:
    store = no_reflink / "store"
    package = one_package(store, plain(mode))
    assert not migrate_one(store, package)
    assert is_linked(store, package.path / "manifest.toml")


def test_auto_copies_what_has_attributes(no_reflink: Path, able: Abilities) -> None:
    subjects = {"user.a": b"1"} if able.user_xattrs else {}
    subjects |= {"trusted.a": b"1"} if able.trusted_xattrs else {}
    subjects |= {ACL_ACCESS: acl()} if able.acls else {}
    subjects |= {CAPABILITY: capability()} if able.capabilities else {}
    if not subjects:
        pytest.skip("no extended attributes on this file system")
    for number, (name, value) in enumerate(subjects.items()):
        store = no_reflink / f"store{number}"
        assert not migrate_one(store, one_package(store, marked(name, value))), name


@pytest.mark.root
def test_auto_copies_what_belongs_to_another(no_reflink: Path) -> None:
    store = no_reflink / "store"
    assert not migrate_one(store, one_package(store, owned(1000, 1000)))


@pytest.mark.root
def test_the_store_may_belong_to_another(no_reflink: Path) -> None:
    """Root migrates a user's store: what the user owns may be linked, what root owns not."""
    store = no_reflink / "store"
    users = one_package(store, owned(1000, 1000), "users")
    roots = one_package(store, owned(0, 0), "roots")
    os.chown(store, 1000, 1000)
    packages = {package.hash: package for package in (users, roots)}
    migrated = migrate_all(Regrain(store), packages)
    assert_complete(store, packages, migrated.before)
    assert not is_linked(store, roots.path / PAYLOAD)
    assert {os.stat(p).st_uid for p in (store / "objects").glob("*/*")} == {1000}


def test_a_link_group_inside_its_package_is_linked_once(no_reflink: Path) -> None:
    def build(tree: Tree) -> None:
        tree.file(PAYLOAD.encode(), b"subject\n")
        tree.link(LIVE + b"/other-name", PAYLOAD.encode())

    store = no_reflink / "store"
    package = one_package(store, build)
    assert migrate_one(store, package)
    assert (package.path / PAYLOAD).stat().st_nlink == 3


@pytest.mark.parametrize("outside", ["beside", "package"])
@pytest.mark.parametrize("link_outside", [False, True])
def test_what_is_linked_from_outside_is_copied(
    no_reflink: Path, outside: str, link_outside: bool
) -> None:
    store = no_reflink / "store"
    package = awkward.add_linked_outside(store, no_reflink / "elsewhere", 1)
    packages = {package.hash: package}
    if outside == "package":  # the same inode in two packages: outside for each of them
        other = one_package(store, lambda tree: None, "other")
        os.link(no_reflink / "elsewhere", other.path / "linked")
        (no_reflink / "elsewhere").unlink()
        packages[other.hash] = other
    migrated = migrate_all(
        Regrain(store, {"REGRAIN_STORE__LINK_OUTSIDE": str(link_outside).lower()}), packages
    )
    assert_complete(store, packages, migrated.before)
    share = package.path / "opt/pm/live/share"
    assert is_linked(store, share / "outside") is link_outside
    assert is_linked(store, share / "inside")


def test_empty_files_are_never_linked(no_reflink: Path) -> None:
    store = no_reflink / "store"
    package = one_package(store, plain(0o644, b""))
    assert not migrate_one(store, package)
    assert (package.path / PAYLOAD).stat().st_nlink == 1


def test_each_mode_of_the_same_bytes_has_its_own_carrier(no_reflink: Path) -> None:
    store = no_reflink / "store"
    modes = (0o600, 0o644, 0o755, 0o664, 0o4755)
    made = [one_package(store, plain(mode), f"mode-{mode:04o}") for mode in modes]
    packages = {package.hash: package for package in made}
    migrated = migrate_all(Regrain(store), packages)
    checked = assert_complete(store, packages, migrated.before)
    digest = migrated.before[made[0].hash][PAYLOAD.encode()].digest
    assert len(checked.carriers[digest]) == 3
    linked = {
        mode for mode, p in zip(modes, made, strict=True) if is_linked(store, p.path / PAYLOAD)
    }
    assert {0o600} <= linked <= {0o600, 0o644, 0o755}


@pytest.mark.parametrize("sync", ["syncfs", "fsync"])
def test_copy_links_nothing(
    regrain: Regrain, legacy_store: dict[str, LegacyPackage], sync: str
) -> None:
    env = {"REGRAIN_STORE__INGEST": "copy", "REGRAIN_STORE__SYNC": sync}
    migrated = migrate_all(Regrain(regrain.store, env), legacy_store)
    assert_complete(regrain.store, legacy_store, migrated.before)
    legacy = {e.identity for tree in migrated.before.values() for e in tree.values()}
    assert not legacy & object_inodes(regrain.store)
    links = [e.links for tree in record(legacy_store).values() for e in tree.values()]
    assert links == [e.links for tree in migrated.before.values() for e in tree.values()]


def test_hardlink_links_or_says_why_not(no_reflink: Path) -> None:
    store = no_reflink / "store"
    good = one_package(store, plain(0o644), "good")
    bad = one_package(store, plain(0o664, b"other bytes\n"), "bad")
    packages = {good.hash: good, bad.hash: bad}
    before = record(packages)
    regrain = Regrain(store, {"REGRAIN_STORE__INGEST": "hardlink"})
    regrain("init")
    result = regrain("migrate", "--json", code=3)
    assert statuses(store) == {good.hash: "completed", bad.hash: "failed"}
    assert is_linked(store, good.path / PAYLOAD)
    assert PAYLOAD in text_of(result)
    assert bad.hash in text_of(result)
    checked = assert_sound(store, packages, before, orphans=True)
    assert checked.packages.keys() == {good.hash}


def test_reflink_without_the_ability_says_why_not(no_reflink: Path) -> None:
    store = no_reflink / "store"
    package = one_package(store, plain(0o644))
    before = record({package.hash: package})
    regrain = Regrain(store, {"REGRAIN_STORE__INGEST": "reflink"})
    regrain("init")
    result = regrain("migrate", "--json", code=3)
    assert statuses(store) == {package.hash: "failed"}
    assert "reflink" in text_of(result)
    assert_sound(store, {package.hash: package}, before, orphans=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
@pytest.mark.parametrize("ingest", ["auto", pytest.param("reflink", marks=pytest.mark.slow)])
def test_reflink_shares_blocks(
    request: pytest.FixtureRequest, seed: int, kind: str, ingest: str
) -> None:
    if shutil.which("filefrag") is None:
        pytest.skip("needs filefrag")
    store = request.getfixturevalue(kind) / "store"
    able = request.getfixturevalue("able")
    packages = awkward.make_legacy_store(store, seed, able)
    migrated = migrate_all(Regrain(store, {"REGRAIN_STORE__INGEST": ingest}), packages)
    assert_complete(store, packages, migrated.before)
    big = migrated.named("a large file")
    digest = migrated.before[big.hash][b"opt/pm/live/share/big.bin"].digest
    carrier = store / "objects" / digest[:2] / digest
    assert not is_linked(store, big.path / "opt/pm/live/share/big.bin")
    assert mounts.shared_bytes(carrier)
    Regrain(store)("verify", "--level", "deep")
    for name in packages:
        place = store.parent / "out"
        said = checkout_differences(Regrain(store), name, migrated.before[name], place)
        assert said == [], packages[name].what
        subprocess.run(["rm", "-rf", place], check=True)


@pytest.mark.root
def test_ext4_takes_every_awkward_package(ext4: Path, seed: int, able: Abilities) -> None:
    store = ext4 / "store"
    packages = awkward.make_legacy_store(store, seed, able)
    migrated = migrate_all(Regrain(store), packages)
    assert_complete(store, packages, migrated.before)
    assert is_linked(store, migrated.named("a large file").path / "opt/pm/live/share/big.bin")


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Set the flag that makes ``link`` answer EPERM."""

    def change(descriptor: int, flags: Callable[[int], int]) -> None:
        word = fcntl.ioctl(descriptor, GET_FLAGS, struct.pack("l", 0))
        (now,) = struct.unpack("l", word)
        fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("l", flags(now)))

    with path.open("rb") as stream:
        change(stream.fileno(), lambda flags: flags | IMMUTABLE)
        try:
            yield
        finally:
            change(stream.fileno(), lambda flags: flags & ~IMMUTABLE)


@pytest.mark.root
def test_eperm_under_auto_means_copy(ext4: Path) -> None:
    store = ext4 / "store"
    package = one_package(store, plain(0o644))
    with immutable(package.path / PAYLOAD):
        assert not migrate_one(store, package)


@pytest.mark.root
@pytest.mark.parametrize("ingest", ["auto", "hardlink"])
def test_exdev_means_copy_unless_links_are_forced(ext4: Path, workplace: Path, ingest: str) -> None:
    store = workplace / "store"
    package = one_package(store, plain(0o644))
    far = one_package(ext4, plain(0o600, b"on another file system\n"), "far")
    (store / far.hash).mkdir()
    subprocess.run(["mount", "--bind", far.path, store / far.hash], check=True)
    try:
        near = LegacyPackage(far.hash, store / far.hash, "far", "1", "far")
        packages = {package.hash: package, near.hash: near}
        before = record(packages)
        regrain = Regrain(store, {"REGRAIN_STORE__INGEST": ingest})
        regrain("init")
        regrain("migrate", code=0 if ingest == "auto" else 3)
        wanted = "completed" if ingest == "auto" else "failed"
        assert statuses(store)[near.hash] == wanted
        checked = assert_sound(store, packages, before, orphans=True)
        assert (near.hash in checked.packages) is (ingest == "auto")
    finally:
        mounts.unmount(store / far.hash)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(600)
def test_emlink_under_auto_means_copy(ext4: Path) -> None:
    links_max = 65_000

    def build(tree: Tree) -> None:
        tree.file(PAYLOAD.encode(), b"as many links as ext4 allows\n")
        first = tree.root / PAYLOAD
        for number in range(links_max - 1):
            os.link(first, first.with_name(f"{number:05d}"))

    store = ext4 / "store"
    package = one_package(store, build)
    assert (package.path / PAYLOAD).stat().st_nlink == links_max
    assert not migrate_one(store, package)
