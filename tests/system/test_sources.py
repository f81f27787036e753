"""The same tree is the same package, whichever way it came into the store."""

from __future__ import annotations

import json
import os
import stat
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blake3 import blake3

from regrain.app.keeping import add_package
from regrain.app.store import PackageStore
from regrain.settings import Migration, Settings
from regrain.settings import Store as StoreSettings
from tests import awkward, mounts
from tests.archives import ARCHIVERS, Archiver, compressed
from tests.command import Regrain
from tests.compare import Snapshot, differences, snapshot
from tests.conftest import remove
from tests.faults.inline import initialise, inline_workers
from tests.faults.judge import ledger_problems
from tests.faults.small import quick_place
from tests.reader import Store, check_store, package_tree
from tests.trees import LegacyPackage, probe

SEED = 7
SUBJECTS = (
    "empties",
    "symlinks",
    "link-groups",
    "sparse",
    "modes",
    "xattrs",
    "acls",
    "owners",
    "names",
    "order",
    "look-alikes",
    "deep",
)
EXACT = ("gnu-tar-posix-sparse", "bsdtar-pax")
ARCHIVER = {archiver.name: archiver for archiver in ARCHIVERS}
NOT_FOR = {
    "python-pax": {"deep"},
    "python-ustar": {"deep", "names", "symlinks", "link-groups", "order", "look-alikes", "owners"},
}


def settings(ingest: str = "auto", *, legacy: bool = False) -> Settings:
    store = StoreSettings(ingest=ingest, use_file_level_storage=not legacy)  # type: ignore[arg-type]
    return Settings(store, Migration(settle=0.0, free_bytes_min=0, free_inodes_min=0))


@dataclass(frozen=True, slots=True)
class Way:
    """A way into a store: by a legacy directory, a directory, an archive; which may be packed."""

    source: str = "directory"
    legacy: bool = False
    packed: bool = False

    @property
    def archiver(self) -> Archiver | None:
        return ARCHIVER.get(self.source)


WAYS = {
    "migrated": Way("legacy"),
    "a directory": Way(),
    "a directory, to legacy": Way(legacy=True),
    "gnu tar": Way("gnu-tar-posix-sparse"),
    "gnu tar, zstd": Way("gnu-tar-posix-sparse", packed=True),
    "bsdtar": Way("bsdtar-pax", packed=True),
    "python": Way("python-pax"),
    "python, ustar": Way("python-ustar"),
    "gnu tar, to legacy": Way("gnu-tar-posix-sparse", legacy=True),
}


@dataclass(slots=True)
class Brought:
    """A store into which all packages were brought one way."""

    path: Path
    expected: dict[str, Snapshot] = field(default_factory=dict)

    def read(self) -> Store:
        return check_store(self.path, legacy=self.legacy())

    def legacy(self) -> list[str]:
        return [name for name in os.listdir(self.path) if name in self.expected]


def build(place: Path, subjects: Iterable[str]) -> dict[str, LegacyPackage]:
    """Build packages; the same each time, but for what cannot be set: inodes, change times."""
    made = {}
    for subject in subjects:
        if subject == "ordinary":
            made[subject] = awkward.add_ordinary(place, "jq", "1.7", SEED)
        elif subject == "old style":
            made[subject] = awkward.add_old_style(place, "tree", "2.1.0", SEED)
        else:
            made[subject] = awkward.add_awkward(place, subject, SEED, probe(place))
    return made


def bring(way: Way, packages: dict[str, LegacyPackage], place: Path, ingest: str) -> Brought:
    """Bring packages into a new store."""
    store = Brought(place / "store")
    store.path.mkdir()
    archiver = way.archiver
    if way.source == "legacy":
        build(store.path, packages)
    initialise(store.path)
    for package in packages.values():
        store.expected[package.hash] = snapshot(package.path)
        if way.source == "legacy":
            continue
        source = package.path
        if archiver is not None:
            if package.what in NOT_FOR.get(archiver.name, set()):
                del store.expected[package.hash]
                continue
            store.expected[package.hash] = archiver.kept(store.expected[package.hash])
            source = place / "archive.sp"
            archiver.pack(package.path, source)
            if way.packed:
                source.write_bytes(compressed(source.read_bytes()))
        opened = PackageStore.open(store.path).root
        chosen = settings(ingest, legacy=way.legacy)
        assert not add_package(opened, chosen, str(source), package.hash).already_present
    with inline_workers():
        done = PackageStore.open(store.path, settings(ingest)).migration().run(jobs=1)
    assert done.failed == 0
    return store


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LegacyPackage]]:
    place = tmp_path_factory.mktemp("sources")
    made = build(place, (*SUBJECTS, "ordinary", "old style"))
    yield made
    remove(place)


@pytest.fixture(scope="module")
def legacy(
    packages: dict[str, LegacyPackage], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Brought]:
    """The store that a migration makes: what every other way is measured by."""
    place = tmp_path_factory.mktemp("legacy")
    yield bring(WAYS["migrated"], packages, place, "auto")
    remove(place)


def carriers(store: Store) -> set[tuple[str, int]]:
    return {
        (digest, stat.S_IMODE(carrier.status.st_mode))
        for digest, found in store.carriers.items()
        for carrier in found
    }


def assert_same(store: Brought, measure: Brought | None, place: Path, *, holes: bool) -> None:
    """File lists, objects, and what readers are given, are those of the trees."""
    read = store.read()
    assert read.problems == []
    assert ledger_problems(store.path) == []
    assert read.packages.keys() == store.expected.keys()
    opened = PackageStore.open(store.path)
    for name, tree in store.expected.items():
        assert differences(tree, package_tree(read, name)) == []
        assert opened.get_package(name).layout.value == "file_level"
        opened.get_package(name).checkout(place / "out")
        found = snapshot(place / "out")
        (place / "out").chmod(0o755)
        remove(place / "out")
        assert differences(tree, found, holes=holes) == []
        assert opened.get_package(name).read("manifest.toml")
    if measure is not None:
        lists = [
            p.path / "packages" / name / "files.json"
            for p in (store, measure)
            for name in read.packages
        ]
        half = len(lists) // 2
        assert [p.read_bytes() for p in lists[:half]] == [p.read_bytes() for p in lists[half:]]
        assert carriers(read) == carriers(measure.read())


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.parametrize("ingest", ["auto", "copy"])
@pytest.mark.parametrize("name", [name for name in WAYS if name != "migrated"])
def test_every_way_in_leads_to_the_same(
    packages: dict[str, LegacyPackage], legacy: Brought, workplace: Path, name: str, ingest: str
) -> None:
    way = WAYS[name]
    if ingest == "copy" and way.archiver is not None and way.source not in EXACT:
        pytest.skip("copied by others")
    store = bring(way, packages, workplace, ingest)
    exact = way.archiver is None or way.source in EXACT
    holes = way.source not in {"bsdtar-pax", "python-pax", "python-ustar"}
    assert_same(store, legacy if exact else None, workplace, holes=holes)


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_reflinked(packages: dict[str, LegacyPackage], workplace: Path, kind: str) -> None:
    some = {what: packages[what] for what in ("ordinary", "link-groups", "modes", "sparse")}
    with mounts.mounted(kind, workplace) as point:
        found = []
        for name in ("migrated", "a directory", "gnu tar, zstd", "a directory, to legacy"):
            (point / name).mkdir()
            found.append(bring(WAYS[name], some, point / name, "auto"))
            assert_same(found[-1], found[0], workplace, holes=True)
        objects = [p for p in (found[1].path / "objects").glob("*/*") if p.stat().st_size > 65536]
        assert objects
        remove(point / "migrated")


def test_the_answers_of_the_command_are_the_same(
    packages: dict[str, LegacyPackage], workplace: Path
) -> None:
    """``list``, ``show``, ``files`` and ``cat``: where a package is read from apart."""
    some = {what: packages[what] for what in ("ordinary", "order")}
    answers = []
    for name in ("migrated", "gnu tar, zstd"):
        (workplace / name).mkdir()
        regrain = Regrain(bring(WAYS[name], some, workplace / name, "auto").path)
        said: list[object] = [regrain("list").text]
        for package in some.values():
            shown = regrain("show", package.hash, "--json").document
            for place in ("layouts", "exclusive_bytes", "legacy_exclusive_bytes", "shared_bytes"):
                shown.pop(place)  # these tell where it lies, not what it is
            said += [shown, regrain("files", package.hash, "--json").stdout]
            said.append(regrain("cat", package.hash, "manifest.toml").stdout)
        answers.append(json.dumps([str(one) for one in said]))
    assert answers[0] == answers[1]


def as_owner(place: Path, work: Callable[[], None]) -> None:
    """Do something as a user without rights, who owns a place."""
    if os.geteuid() != 0:
        work()
        return
    os.chown(place, 12_345, 12_345)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(12_345, 12_345, 12_345)
            os.setresuid(12_345, 12_345, 12_345)
            os.umask(0o077)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 -- the child must not run on as its parent
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_unprivileged_owner(tmp_path: Path) -> None:
    """Also where the tree's top may not be written to, which renaming it asks for."""

    def work(place: Path) -> None:
        source = awkward.add_ordinary(place / "source", "jq", "1.7", SEED)
        (source.path / "opt/pm/live/bin/jq").chmod(0o4755)
        source.path.chmod(0o555)
        for name in ("a directory", "python", "a directory, to legacy", "gnu tar, to legacy"):
            (place / name).mkdir()
            store = bring(WAYS[name], {"ordinary": source}, place / name, "auto")
            assert_same(store, None, place, holes=False)
            regrain = PackageStore.open(store.path)
            regrain.remove_package(source.hash)
            assert list(regrain.packages()) == []
            assert os.listdir(store.path / "trash") == []

    with (
        quick_place(tmp_path) if os.access("/dev/shm", os.W_OK) else nullcontext(tmp_path) as place
    ):
        place.chmod(0o755)
        as_owner(place, lambda: work(place))


def test_names(packages: dict[str, LegacyPackage], workplace: Path) -> None:
    """An archive is named by its bytes, a directory by its tree."""
    initialise_at = workplace / "store"
    initialise_at.mkdir()
    initialise(initialise_at)
    root = PackageStore.open(initialise_at).root
    package = packages["ordinary"]
    by_tree = add_package(root, settings(), str(package.path))
    listed = json.loads(
        (initialise_at / "packages" / by_tree.package_hash / "files.json").read_text()
    )
    assert listed["tree_hash"] == by_tree.package_hash
    archive = workplace / "jq.sp"
    ARCHIVERS[0].pack(package.path, archive)
    archive.write_bytes(compressed(archive.read_bytes()))
    by_bytes = add_package(root, settings(), str(archive))
    assert by_bytes.package_hash == blake3(archive.read_bytes()).hexdigest()
    assert by_bytes.new_objects == 0
    to_legacy = add_package(root, settings(legacy=True), str(package.path))
    assert (to_legacy.package_hash, to_legacy.already_present) == (by_tree.package_hash, True)
