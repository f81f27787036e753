"""What a repair makes is on the disk before it has a name, and the name before the ledger's row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from regrain import disk
from regrain.ledger import Ledger
from tests.conftest import remove
from tests.faults.inline import Way, migrate
from tests.faults.small import Scene, copy_of
from tests.repairs import Damage, carrier, lose, object_of_one, repair, turn_over

pytestmark = pytest.mark.root


@pytest.fixture
def migrated(template: Scene) -> Iterator[Scene]:
    made = copy_of(template, template.path.with_name("ordered"))
    migrate(made.path, Way(batch=10, ingest="copy"))
    yield replace(made, before=template.before)
    remove(made.path)


def recorded(patch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every flush with its inode, every rename, every row of a carrier, in order."""
    calls: list[tuple[str, int]] = []

    def note(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            inode = os.fstat(arguments[0]).st_ino if name in {"fsync", "syncfs"} else 0
            calls.append((name, inode))
            return original(*arguments, **named)

        patch.setattr(owner, name, call)

    for name in ("fsync", "rename_exchange", "rename_noreplace"):
        note(disk, name)
    note(Ledger, "carriers_are")
    return calls


@pytest.mark.parametrize("damage", [turn_over, lose])
def test_an_object(migrated: Scene, damage: Damage, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, digest = object_of_one(migrated)
    there = carrier(migrated, digest)
    damage(there)
    with monkeypatch.context() as patch:
        calls = recorded(patch)
        assert not repair(migrated).is_damaged
    renames = [at for at, (name, _) in enumerate(calls) if name.startswith("rename")]
    (row,) = [at for at, (name, _) in enumerate(calls) if name == "carriers_are"]
    assert calls.index(("fsync", there.stat().st_ino)) < min(renames)
    flushed = [at for at, one in enumerate(calls) if one == ("fsync", there.parent.stat().st_ino)]
    assert any(max(renames) < at < row for at in flushed)
