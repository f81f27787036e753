"""A purge beside somebody who removes packages: what goes meanwhile is not in its way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from regrain import PackageStore
from regrain.app import undoing
from regrain.errors import RefusedError
from regrain.maintain import purge as purging
from regrain.store.compare import first_difference
from regrain.store.packages import published
from tests import awkward
from tests.command import Regrain
from tests.stores import migrate_all


@pytest.fixture
def rolled_back(workplace: Path, seed: int) -> PackageStore:
    """A small store that was migrated and rolled back."""
    store = workplace / "store"
    regrain = Regrain(store)
    migrate_all(regrain, awkward.make_three(store, seed))
    regrain("rollback")
    return PackageStore.open(store)


def test_one_is_removed_while_it_is_compared(
    rolled_back: PackageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def remove_first(listed: Any, found: Any) -> object:
        if not taken:
            taken.append(published(rolled_back.root.packages)[0])
            rolled_back.remove_package(taken[0])
        return first_difference(listed, found)

    monkeypatch.setattr(purging, "first_difference", remove_first)
    before = len(os.listdir(rolled_back.root.packages))
    done = undoing.purge(rolled_back.root)
    assert taken
    assert done.packages == before - 1
    assert os.listdir(rolled_back.root.packages) == []


def test_one_that_changed_is_still_refused(rolled_back: PackageStore) -> None:
    name = published(rolled_back.root.packages)[0]
    with open(os.path.join(rolled_back.root.path, name, "stranger"), "w"):
        pass
    with pytest.raises(RefusedError, match=name):
        undoing.purge(rolled_back.root)
