"""A store with one damage of every kind, and its repair, inside this process."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from regrain.app.repairing import Order
from regrain.app.repairing import repair as repair_store
from regrain.maintain.audit import Level
from regrain.store.root import StoreRoot
from tests import repairs
from tests.conftest import remove
from tests.faults.small import Scene, copy_of
from tests.faults.undoing import inline_audit

NOBODYS = "ab" * 32


def repair(store: Path) -> None:
    """What is swept."""
    with inline_audit():
        done = repair_store(StoreRoot(os.fspath(store)), repairs.SETTINGS, Order(level=Level.DEEP))
    assert not done.is_damaged, done


def damaged_copy(whole: Scene, name: str = "damaged") -> Scene:
    """A copy of a migrated store of which much is damaged, and all of that can be healed."""
    made = copy_of(whole, whole.path.with_name(name))
    scene = replace(made, before=whole.before)
    _, _, digest = repairs.object_of_one(scene)
    repairs.turn_over(repairs.carrier(scene, digest))
    repairs.lose(repairs.carrier(scene, _object(scene, "grouped", "share/first")))
    repairs.open_up(repairs.carrier(scene, _object(scene, "copied", "share/marked")))
    repairs.become_link(repairs.carrier(scene, _object(scene, "sliced", "share/3/a")))
    nobodys = repairs.carrier(scene, NOBODYS)
    nobodys.write_bytes(b"not that")
    nobodys.chmod(0o644)
    packages = scene.path / "packages"
    repairs.turn_over(packages / scene.named("grouped").hash / "files.json")
    remove(packages / scene.named("copied").hash)
    (packages / scene.named("sliced").hash / "manifest.toml").unlink()
    repairs.turn_over(scene.path / scene.named("sliced").hash / repairs.INSIDE / "share/5/a")
    return scene


def _object(scene: Scene, package: str, path: str) -> str:
    return repairs.digest_of(scene, package, f"{repairs.INSIDE}/{path}")


def damaged_inodes(scene: Scene) -> dict[int, bytes]:
    """The bytes of every inode that a repair moves aside."""
    _, _, digest = repairs.object_of_one(scene)
    found = [
        repairs.carrier(scene, digest),
        repairs.carrier(scene, NOBODYS),
        scene.path / "packages" / scene.named("grouped").hash / "files.json",
        scene.path / scene.named("sliced").hash / repairs.INSIDE / "share/5/a",
    ]
    return {path.stat().st_ino: path.read_bytes() for path in found}


def lost_inodes(scene: Scene, damaged: dict[int, bytes]) -> list[str]:
    """Of these, those that are nowhere any more: what is damaged is never deleted."""
    there = {
        path.lstat().st_ino: path
        for path in scene.path.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    return [
        f"deleted: inode {inode}"
        for inode, content in damaged.items()
        if inode not in there or there[inode].read_bytes() != content
    ]
