"""Legacy directories that appear, change, vanish and return; integrity, and ``why``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from regrain import PackageStore
from regrain.app.account import why
from regrain.app.triggers import TriggeredError
from regrain.app.verification import verify
from regrain.errors import RefusedError, UnknownPackageError
from regrain.ledger import open_ledger
from regrain.maintain.audit import Level
from regrain.model.events import Reconciled
from regrain.model.phase import Layout, Phase
from regrain.settings import Migration as MigrationSettings
from regrain.settings import Settings
from regrain.store.root import StoreRoot, write_store_file
from tests import awkward
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.conftest import remove
from tests.faults.inline import Told, initialise, migrate
from tests.faults.small import Scene, copy_of
from tests.model import steps
from tests.reader import check_store, package_tree
from tests.stores import read_ledger, record, statuses
from tests.trees import LegacyPackage

pytestmark = pytest.mark.both_databases

SETTINGS = Settings(migration=MigrationSettings(settle=0.0))
PHASES = [Phase.DUAL, Phase.FILE_LEVEL, Phase.CLEAN]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Scene:
    place = tmp_path_factory.mktemp("reconciliation") / "store"
    made = [awkward.add_ordinary(place, "jq", version, seed) for version in ("1.6", "1.7")]
    packages = {package.hash: package for package in made}
    initialise(place)
    migrate(place)
    return Scene(place, packages, record(packages))


@pytest.fixture
def scene(template: Scene, store_path: Path) -> Scene:
    return copy_of(template, store_path)


@pytest.fixture(params=PHASES)
def phased(scene: Scene, request: pytest.FixtureRequest) -> Scene:
    root = StoreRoot(str(scene.path))
    write_store_file(root.fd, root.store_id, request.param)
    return scene


def one(scene: Scene) -> LegacyPackage:
    return scene.packages[min(scene.packages)]


def look(scene: Scene, *, rescan: bool = False, accept: str | None = None) -> list[Reconciled]:
    told = Told()
    with suppress(TriggeredError):  # what changed ends the run
        migrate(scene.path, rescan=rescan, accept=accept, on_event=told.events.append)
    return told.of(Reconciled)


def deep(scene: Scene, *names: str, level: Level = Level.DEEP) -> list[str]:
    """Verify; what changed or is damaged, by package."""
    root = PackageStore.open(scene.path).root
    found = verify(
        root,
        SETTINGS,
        list(names),
        level=level,
        subset=None,
        on_result=lambda _: None,
        stopping=lambda: False,
    ).audit
    return [*(c.package_hash for c in found.changes), *(d.package_hash for d in found.damages)]


def concerns(scene: Scene) -> dict[str, str]:
    return dict(read_ledger(scene.path, "SELECT package_hash, what FROM integrity"))


def history(scene: Scene, event: str) -> list[str]:
    query = "SELECT package_hash FROM history WHERE event = ? ORDER BY id"
    return [name for (name,) in read_ledger(scene.path, query, event)]


def assert_published(scene: Scene, name: str) -> None:
    """What is served is what was published, and is read from there."""
    store = check_store(scene.path, orphans=True)
    assert differences(scene.before[name], package_tree(store, name)) == []
    assert PackageStore.open(scene.path).get_package(name).layout is Layout.FILE_LEVEL


def rewrite(path: Path) -> None:
    """Replace a file as editors do: a write in place would hit the object, too."""
    path.unlink()
    path.write_text("[package]\nname = 'new'\n")


# vanished


def test_a_published_package_outlives_its_directory(phased: Scene) -> None:
    name = one(phased).hash
    remove(one(phased).path)
    assert [event.vanished for event in look(phased)] == [(name,)]
    assert statuses(phased.path)[name] == "completed"
    assert history(phased, "legacy_vanished") == [name]
    assert_published(phased, name)
    assert look(phased, rescan=True) == []  # once
    assert history(phased, "legacy_vanished") == [name]
    assert concerns(phased) == {}


def test_one_that_was_not_published_has_failed(phased: Scene, seed: int) -> None:
    new = awkward.add_ordinary(phased.path, "late", "1", seed)
    migrate(phased.path, limit=0)
    assert statuses(phased.path)[new.hash] == "pending"
    remove(new.path)
    assert [event.vanished for event in look(phased)] == [(new.hash,)]
    assert statuses(phased.path)[new.hash] == "failed"
    ((words,),) = read_ledger(
        phased.path, "SELECT error_message FROM store_migration WHERE status = 'failed'"
    )
    assert words.startswith("source vanished")
    assert look(phased) == []


def test_one_that_vanished_for_good_can_be_given_up(phased: Scene, seed: int) -> None:
    """Else it would keep the gate closed for ever."""
    new = awkward.add_ordinary(phased.path, "late", "1", seed)
    migrate(phased.path, limit=0)
    remove(new.path)
    look(phased)
    assert f"regrain remove {new.hash}" in why(StoreRoot(str(phased.path)), new.hash).todo
    store = PackageStore.open(phased.path, SETTINGS)
    removal = store.remove_package(new.hash)
    assert (removal.layouts, removal.objects) == ([], 0)
    assert new.hash not in statuses(phased.path)
    with pytest.raises(UnknownPackageError):
        store.remove_package(new.hash)
    assert look(phased) == []


def test_what_is_published_alone_in_a_rolled_back_store_comes_back(scene: Scene) -> None:
    name, root = one(scene).hash, StoreRoot(str(scene.path))
    write_store_file(root.fd, root.store_id, Phase.ROLLED_BACK)
    ledger = open_ledger(str(scene.path))
    ledger.all_rolled_back()
    ledger.close()
    remove(one(scene).path)
    account = why(root, name)
    assert account.read_from is None
    assert "regrain migrate" in account.todo
    migrate(scene.path)
    assert why(root, name).read_from is Layout.FILE_LEVEL


def test_one_that_vanished_can_be_removed(scene: Scene, seed: int) -> None:
    """Else it would stand in the way of the cutover for ever."""
    package = awkward.add_ordinary(scene.path, "curl", "9.0", seed)
    initialise(scene.path)
    remove(package.path)
    look(scene)
    regrain = Regrain(scene.path)
    assert "neither layout" in regrain("remove", package.hash).text
    assert statuses(scene.path)[package.hash] == "failed"
    regrain("remove", package.hash, "--execute")
    assert package.hash not in statuses(scene.path)
    regrain("remove", package.hash, "--execute", code=1)


def test_what_failed_and_was_added_since_is_done_with(
    phased: Scene, workplace: Path, seed: int
) -> None:
    """Its directory vanished before it was migrated; nothing is left that could be retried."""
    package = awkward.add_ordinary(phased.path, "curl", "9.0", seed)
    initialise(phased.path)
    package.path.rename(workplace / "aside")
    look(phased)
    assert statuses(phased.path)[package.hash] == "failed"
    assert steps.add(phased.path, path=str(workplace / "aside"), package_hash=package.hash) == 0
    look(phased)
    assert set(statuses(phased.path).values()) == {"completed"}
    assert migrate(phased.path, retry_failed=True).failed == 0
    assert deep(phased) == []


def test_a_directory_that_returns_is_known_again(phased: Scene, workplace: Path) -> None:
    package = one(phased)
    package.path.rename(workplace / "aside")
    look(phased)
    (workplace / "aside").rename(package.path)
    assert look(phased) == []
    assert history(phased, "legacy_reappeared") == [package.hash]
    query = "SELECT COUNT(*) FROM store_migration WHERE cleaned_at IS NOT NULL"
    assert read_ledger(phased.path, query) == [(0,)]
    package.path.rename(workplace / "aside")
    assert [event.vanished for event in look(phased)] == [(package.hash,)]


@pytest.mark.parametrize("step", [steps.exclude, steps.roll_one_back])
def test_what_returned_and_is_unpublished_lacks_no_copy(
    scene: Scene, workplace: Path, step: Callable[..., int]
) -> None:
    """Gone, back again, then on purpose read from legacy only: nothing stands against that."""
    package = one(scene)
    package.path.rename(workplace / "aside")
    look(scene)
    (workplace / "aside").rename(package.path)
    assert step(scene.path, name=package.hash) == 0
    assert look(scene, rescan=True) == []
    assert concerns(scene) == {}


# changed


def test_a_changed_directory_is_an_integrity_failure(phased: Scene) -> None:
    name, manifest = one(phased).hash, one(phased).path / "manifest.toml"
    rewrite(manifest)
    assert look(phased) == []  # a plain run does not look closely
    ((found,),) = [event.changed for event in look(phased, rescan=True)]
    assert found[0] == name
    assert concerns(phased)[name] == "legacy directory: its modification time changed"
    assert statuses(phased.path)[name] == "completed"
    assert_published(phased, name)
    assert history(phased, "integrity") == [name]
    look(phased, rescan=True)
    assert history(phased, "integrity") == [name]


@pytest.mark.parametrize("what", ["chmod", "chown", "touch", "xattr", "add", "delete", "fifo"])
def test_whatever_changes_is_seen(scene: Scene, what: str) -> None:
    package = one(scene)
    file = package.path / "manifest.toml"
    change: dict[str, Callable[[], object]] = {
        "chmod": lambda: file.chmod(0o600),
        "chown": lambda: os.chown(file, 77, 77),
        "touch": lambda: os.utime(file, ns=(1, 1)),
        "xattr": lambda: os.setxattr(file, "user.mark", b"x"),
        "add": (package.path / "zz").mkdir,
        "delete": file.unlink,
        "fifo": lambda: os.mkfifo(package.path / "zz"),
    }
    if what == "chown" and os.geteuid() != 0:
        pytest.skip("needs root, to give files away")
    change[what]()
    look(scene, rescan=True)
    assert concerns(scene).keys() == {package.hash}


def test_accepting_replaces_what_is_published(phased: Scene) -> None:
    package = one(phased)
    rewrite(package.path / "manifest.toml")
    look(phased, rescan=True)
    after = snapshot(package.path)
    look(phased, accept=package.hash[:12])
    assert concerns(phased) == {}
    assert statuses(phased.path)[package.hash] == "completed"
    store = check_store(phased.path, orphans=True)
    assert differences(after, package_tree(store, package.hash)) == []
    assert deep(phased) == []
    assert history(phased, "legacy_accepted") == [package.hash]


def test_what_was_accepted_survives_a_kill(scene: Scene) -> None:
    """The old list, still published, is not taken for the new one by the recovery."""
    package = one(scene)
    rewrite(package.path / "manifest.toml")
    after = snapshot(package.path)
    migrate(scene.path, accept=package.hash, limit=0)
    ledger = open_ledger(str(scene.path))
    assert [claim.package_hash for claim in ledger.claim(1)] == [package.hash]
    ledger.close()  # the process died here
    migrate(scene.path)
    store = check_store(scene.path, orphans=True)
    assert differences(after, package_tree(store, package.hash)) == []
    assert deep(scene) == []


def test_nothing_to_accept(scene: Scene) -> None:
    package = one(scene)
    remove(package.path)
    with pytest.raises(RefusedError):
        migrate(scene.path, accept=package.hash)
    assert_published(scene, package.hash)
    other = max(scene.packages)
    Regrain(scene.path)("exclude", other)
    with pytest.raises(RefusedError):
        migrate(scene.path, accept=other)


# appeared


def test_a_directory_beside_a_published_package(scene: Scene, workplace: Path) -> None:
    """Of a package that was added: equal, it is recorded; different, it replaces nothing."""
    package = one(scene)
    store = PackageStore.open(scene.path, SETTINGS)
    shutil.move(package.path, workplace / "aside")
    store.remove_package(package.hash)
    assert store.add_package(workplace / "aside", package.hash).package_hash == package.hash
    assert package.hash not in statuses(scene.path)
    assert os.system(f"cp -a {workplace}/aside {package.path}") == 0
    (package.path / "manifest.toml").write_text("different")
    ((found,),) = [event.changed for event in look(scene)]
    assert found[0] == package.hash
    assert package.hash not in statuses(scene.path)
    assert_published(scene, package.hash)
    remove(package.path)
    assert os.system(f"cp -a {workplace}/aside {package.path}") == 0
    look(scene, rescan=True)
    assert statuses(scene.path)[package.hash] == "completed"
    assert deep(scene) == []
    assert concerns(scene) == {}
    assert_published(scene, package.hash)


def test_a_directory_that_cannot_be_brought_in_says_so(phased: Scene, seed: int) -> None:
    new = awkward.add_ordinary(phased.path, "late", "1", seed)
    os.mkfifo(new.path / "fifo")
    assert migrate(phased.path).failed == 1
    assert statuses(phased.path)[new.hash] == "failed"


def test_one_removed_while_it_is_noted_stays_removed(scene: Scene, seed: int) -> None:
    new = awkward.add_ordinary(scene.path, "late", "1", seed)
    migrate(scene.path, limit=0)
    PackageStore.open(scene.path).remove_package(new.hash)
    assert look(scene, rescan=True) == []
    assert new.hash not in statuses(scene.path)


# integrity, and what verify makes of it


def test_damage_is_noted_and_taken_back_by_a_clean_look(scene: Scene) -> None:
    name = one(scene).hash
    carrier = max((scene.path / "objects").glob("*/*"), key=lambda p: p.lstat().st_size)
    aside = carrier.with_name("aside")
    carrier.rename(aside)
    carrier.write_bytes(bytes(aside.stat().st_size))
    os.chmod(carrier, aside.stat().st_mode)
    found = set(deep(scene, level=Level.FULL))
    assert found == concerns(scene).keys()
    assert PackageStore.open(scene.path, SETTINGS).migration().health().status == "critical"
    assert deep(scene, level=Level.QUICK) == []
    assert concerns(scene).keys() == found
    aside.rename(carrier)
    assert deep(scene, level=Level.FULL) == []
    assert concerns(scene) == {}
    assert PackageStore.open(scene.path, SETTINGS).migration().health().status == "healthy"
    assert name in scene.packages


def test_only_a_deep_look_takes_a_change_back(scene: Scene) -> None:
    manifest = one(scene).path / "manifest.toml"
    mode = manifest.stat().st_mode
    manifest.chmod(0o600)
    assert deep(scene) == [one(scene).hash]
    manifest.chmod(mode)
    assert deep(scene, level=Level.FULL) == []
    assert concerns(scene).keys() == {one(scene).hash}
    assert deep(scene) == []
    assert concerns(scene) == {}


def test_a_removed_package_is_no_concern(scene: Scene) -> None:
    (one(scene).path / "manifest.toml").chmod(0o600)
    look(scene, rescan=True)
    PackageStore.open(scene.path).remove_package(one(scene).hash)
    assert concerns(scene) == {}


# why


def test_why(scene: Scene, seed: int) -> None:
    name, root = one(scene).hash, StoreRoot(str(scene.path))
    found = why(root, name[:12])
    assert (found.package_hash, found.read_from, found.todo) == (
        name,
        Layout.FILE_LEVEL,
        "Nothing.",
    )
    new = awkward.add_ordinary(scene.path, "late", "1", seed)
    os.mkfifo(new.path / "fifo")
    migrate(scene.path)
    assert "--retry-failed" in why(root, new.hash).todo
    remove(new.path)
    gone = why(root, new.hash)
    assert (gone.read_from, gone.layouts) == (None, [])
    (one(scene).path / "manifest.toml").chmod(0o600)
    look(scene, rescan=True)
    assert f"--accept-legacy {name}" in why(root, name).todo
    regrain = Regrain(scene.path)
    text = regrain("why", name).text
    assert "its mode changed" in text
    assert "integrity" in text
    regrain("exclude", max(scene.packages))
    document = regrain("why", max(scene.packages), "--json").document
    assert (document["excluded"], document["read_from"]) == (True, "legacy")
    assert [line["event"] for line in document["history"]][-1] == "package_excluded"
    regrain("why", "0" * 64, code=1)
    regrain("why", "xyz", code=2)


def test_what_cannot_be_accepted_leaves_a_rolled_back_store_as_it_is(scene: Scene) -> None:
    root = StoreRoot(str(scene.path))
    write_store_file(root.fd, root.store_id, Phase.ROLLED_BACK)
    for text, code in (("0" * 64, 1), ("xyz", 2)):
        Regrain(scene.path)("migrate", "--accept-legacy", text, code=code)
    assert root.phase() is Phase.ROLLED_BACK
