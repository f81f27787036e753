"""``checkout --subtree``: a directory of a package, or one of its files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from regrain import PackageStore
from regrain.app.store import Package
from regrain.errors import RegrainError
from tests.checkouts import NAME, linked, make_legacy, make_store, shared_differences
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.faults.inline import initialise
from tests.stores import Migrated
from tests.trees import ACL_ACCESS, ACL_DEFAULT, LIVE, Abilities, acl

MODES = ("exact", "shared")


@pytest.fixture
def place(workplace: Path) -> Path:
    return workplace / "store"


@pytest.fixture(params=["file_level", "legacy"])
def before(request: pytest.FixtureRequest, place: Path) -> Snapshot:
    """A store with one package, in one of the layouts."""
    if request.param == "file_level":
        return make_store(place)
    made = make_legacy(place)
    initialise(place)
    return made


def opened(store: Path) -> Package:
    return PackageStore.open(store).get_package(NAME)


def below(tree: Snapshot, top: bytes) -> Snapshot:
    """What a tree is from a directory on; groups are those among what is there."""
    found = {
        path[len(top) + 1 :]: entry
        for path, entry in tree.items()
        if path == top or path.startswith(top + b"/")
    }
    names: dict[bytes | None, list[bytes]] = {}
    for path, entry in found.items():
        names.setdefault(entry.group, []).append(path)
    grouped = {
        path: min(names[entry.group]) if entry.group and len(names[entry.group]) > 1 else None
        for path, entry in found.items()
    }
    return {path: replace(entry, path=path, group=grouped[path]) for path, entry in found.items()}


@pytest.mark.parametrize("top", [b"share", b"group", b"other", b"bin"])
def test_a_directory_becomes_the_destination(
    place: Path, before: Snapshot, workplace: Path, top: bytes
) -> None:
    """A group whose first name is outside is one among those inside."""
    wanted = below(before, top)
    spellings: list[str | bytes] = [top, top.decode(), top + b"/"]
    for number, subtree in enumerate(spellings):
        out = workplace / str(number)
        assert opened(place).checkout(out, subtree=subtree) == len(wanted)
        assert differences(wanted, snapshot(out), holes=True) == []


def test_groups_inside_and_across(place: Path, before: Snapshot, workplace: Path) -> None:
    opened(place).checkout(workplace / "out", subtree="other")
    inodes = {
        name: (workplace / "out" / name).stat().st_ino for name in os.listdir(workplace / "out")
    }
    assert inodes["third"] == inodes["fourth"]
    assert inodes["wide-too"] == inodes["wide-three"]
    assert len(set(inodes.values())) == 2
    assert (workplace / "out/third").stat().st_nlink == 2


@pytest.mark.parametrize("top", [b"share", b"group", b"other"])
def test_a_shared_directory(workplace: Path, place: Path, top: bytes) -> None:
    before = make_store(place)
    opened(place).checkout(workplace / "out", mode="shared", subtree=top)
    assert shared_differences(below(before, top), workplace / "out", place) == []
    assert linked(workplace / "out", place)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", ["share/text", "other/third", "share/wide", "share/empty"])
def test_a_file_appears_under_its_own_name(
    place: Path, before: Snapshot, workplace: Path, mode: str, path: str
) -> None:
    assert opened(place).checkout(workplace / "out", mode=mode, subtree=path) == 1
    name = os.fsencode(path.rpartition("/")[2])
    found = snapshot(workplace / "out")
    assert found.keys() == {b"", name}
    wanted = replace(before[path.encode()], group=None)
    if name in linked(workplace / "out", place):
        wanted = replace(wanted, mtime_ns=found[name].mtime_ns)
    assert differences({name: wanted}, {name: found[name]}) == []


def test_the_directory_a_file_gets_is_an_ordinary_one(
    place: Path, before: Snapshot, workplace: Path
) -> None:
    for umask, mode in ((0o022, 0o755), (0o077, 0o700), (0o002, 0o775)):
        out = workplace / f"{umask}"
        Regrain(place)("checkout", NAME, out, "--subtree", "share/text", umask=umask)
        assert out.stat().st_mode & 0o7777 == mode


def test_an_existing_directory_stays_what_it_is(
    place: Path, before: Snapshot, workplace: Path, able: Abilities
) -> None:
    """Its access list as well, which must not spread to the file."""
    out = workplace / "out"
    out.mkdir()
    os.chown(out, 1234, 4321)
    out.chmod(0o2751)
    if able.acls:
        os.setxattr(out, ACL_ACCESS, acl())
        os.setxattr(out, ACL_DEFAULT, acl(54321, 7))
    was = snapshot(out)[b""]
    opened(place).checkout(out, subtree="bin/tool")
    found = snapshot(out)
    now = replace(found[b""], mtime_ns=was.mtime_ns)
    assert differences({b"": was}, {b"": now}, identity=True) == []
    assert differences({b"t": before[b"bin/tool"]}, {b"t": found[b"tool"]}) == []


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("no/such", 1, "no such path"),
        ("share/no-such", 1, "no such path"),
        ("share/text/below", 1, "no such path"),
        ("shar", 1, "no such path"),
        ("link", 1, "'link' is a symbolic link"),
        ("link/", 1, "'link' is a symbolic link"),
        ("link/tool", 1, "'link' is a symbolic link"),
        ("bin/out", 1, "'bin/out' is a symbolic link"),
        ("bin/out/x", 1, "'bin/out' is a symbolic link"),
        ("/bin", 2, "relative"),
        ("/", 2, "relative"),
        ("", 2, "relative"),
        (".", 2, "relative"),
        ("./bin", 2, "relative"),
        ("..", 2, "relative"),
        ("bin/../share", 2, "relative"),
        ("bin/..", 2, "relative"),
        ("../" + NAME + "/bin", 2, "relative"),
        ("bin//tool", 2, "relative"),
    ],
)
def test_what_is_no_subtree(
    place: Path, before: Snapshot, workplace: Path, path: str, code: int, words: str
) -> None:
    out = workplace / "out"
    for dry_run in (False, True):
        with pytest.raises(RegrainError, match=words) as caught:
            opened(place).checkout(out, subtree=path, dry_run=dry_run)
        assert caught.value.exit_code == code
    assert not out.exists()


def test_names_of_any_bytes(migrated: Migrated, workplace: Path) -> None:
    package = migrated.named("names")
    before = migrated.before[package.hash]
    for number, name in enumerate((b"\xff\xfe", b"new\nline", b"--help", b"a" * 255)):
        top = LIVE + b"/directories/" + name
        arguments: list[str | bytes | Path] = [
            "checkout",
            package.hash,
            workplace / f"{number}",
            b"--subtree=" + top,
        ]
        said = migrated.regrain(*arguments, "--json").document
        assert said["entries"] == 2
        assert differences(below(before, top), snapshot(workplace / f"{number}")) == []


def test_a_neighbour_whose_name_begins_alike_is_not_in_it(
    migrated: Migrated, workplace: Path
) -> None:
    """``a``, ``a-b`` and ``a/b`` sort in this order."""
    package = migrated.named("order")
    before = migrated.before[package.hash]
    top = LIVE + b"/a"
    migrated.regrain("checkout", package.hash, workplace / "out", b"--subtree", top)
    assert differences(below(before, top), snapshot(workplace / "out")) == []


def test_the_command(place: Path, before: Snapshot, workplace: Path) -> None:
    regrain, out = Regrain(place), workplace / "out"
    arguments: list[str | bytes | Path] = ["checkout", NAME[:12], out, "--subtree", "share/"]
    for dry_run in (["-n"], []):
        said = regrain(*arguments, "--json", *dry_run).document
        assert said["subtree"] == "share/"
        assert said["dry_run"] is bool(dry_run)
        assert said["entries"] == len(below(before, b"share"))
        assert out.exists() is not bool(dry_run)
    assert (
        "share/nothing"
        in regrain(*arguments[:2], workplace / "o", "--subtree", "share/nothing", code=1).stderr
    )
    regrain(*arguments[:2], workplace / "o", "--subtree", "/share", code=2)
