"""An independent reader of the file-level store, written from the contract alone.

``check_store`` reads ``store.toml``, every ``packages/*/files.json`` and every
object, and says in words what is not as product.md fixes it. ``package_tree``
gives a package of the new layout as a ``tests.compare`` snapshot, so that it can
be compared with its legacy directory.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3

from tests.compare import IGNORED_XATTRS, PIECE_BYTES, Entry, Snapshot

PACKAGE_HASH = re.compile(r"\A([0-9a-f]{32}|[0-9a-f]{64})\Z")
DIGEST = re.compile(r"\A[0-9a-f]{64}\Z")
OBJECT = re.compile(r"\A([0-9a-f]{64})(\.m([0-7]{4})|\.zst)?\Z")
STORE_ID_KEY = re.compile(r"(^|[._-])(uu)?id\Z")
PHASES = {"dual", "file_level", "clean", "rolling_back", "rolled_back"}
LEDGER = {"state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "state.sqlite-journal"}
TOP = {
    "store.toml",
    "objects",
    "packages",
    "temp",
    "trash",
    "quarantine",
    "migration",
    *LEDGER,
}
COPIES = re.compile(r"\A(manifest\.toml|sbom\..+)\Z")
KINDS = {"file": b"f", "directory": b"d", "symlink": b"l"}
COMMON_KEYS = {"type", "mode", "uid", "gid", "mtime_ns", "xattrs", "xattrs_b64"}
KEYS = {
    "file": {"hash", "size", "hardlink", "hardlink_b64"},
    "directory": set[str](),
    "symlink": {"target", "target_b64", "hardlink", "hardlink_b64"},
}
NEEDED = {"file": {"hash", "size"}, "directory": set[str](), "symlink": set[str]()}
SPECIAL_BITS = 0o7000
FORBIDDEN_BITS = SPECIAL_BITS | 0o022
EMPTY = blake3(b"").hexdigest()


@dataclass(slots=True)
class Carrier:
    """One inode below ``objects/``."""

    path: Path
    digest: str
    compressed: bool
    named_mode: int | None
    status: os.stat_result


@dataclass(slots=True)
class Store:
    """What was found on disk, and everything that was wrong with it."""

    path: Path
    phase: str = ""
    carriers: dict[str, list[Carrier]] = field(default_factory=dict)
    packages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def digests(self) -> set[str]:
        """The contents that some package names, the empty one left out."""
        entries = (entry for entries in self.packages.values() for entry in entries)
        return {e["hash"] for e in entries if e["type"] == "file" and e["size"] > 0}


def check_store(
    path: Path,
    *,
    legacy: Iterable[str] = (),
    foreign: Iterable[str] = (),
    orphans: bool = False,
) -> Store:
    """Read a whole store; ``problems`` of what comes back is empty if it is sound.

    Args:
        path: The store.
        legacy: Package hashes whose legacy directories must be there.
        foreign: Names at the top that were there before ``init`` and are no packages.
        orphans: Objects that no package names are no problem (after a kill).
    """
    store = Store(path)
    say = store.problems.append
    expected = TOP | set(legacy) | set(foreign)
    found = set(os.listdir(path))
    store.problems += [f"unexpected at the top: {name!r}" for name in sorted(found - expected)]
    store.problems += [f"missing at the top: {name!r}" for name in sorted(expected - found - TOP)]
    store.phase = _check_store_toml(store)
    _read_objects(store)
    for name in sorted(os.listdir(path / "packages")):
        if PACKAGE_HASH.match(name):
            _read_package(store, name)
        else:
            say(f"packages/{name}: not a package hash")
    for folder in ("temp", "trash", "quarantine"):
        if (path / folder).is_dir() and os.listdir(path / folder):
            say(f"{folder}/ is not empty: {os.listdir(path / folder)}")
    if not orphans:
        unnamed = store.carriers.keys() - store.digests()
        store.problems += [f"object {digest} is named by no package" for digest in sorted(unnamed)]
    return store


def package_tree(store: Store, package: str) -> Snapshot:
    """Give a package of the new layout as the tree that it stands for."""
    tree: Snapshot = {}
    groups: dict[bytes, bytes] = {}
    for raw in store.packages[package]:
        path = path_of(raw)
        if (first := text_or_raw(raw, "hardlink")) is not None:
            groups[path] = first
            groups[first] = first
        xattrs = {key: base64.b64decode(value) for key, value in raw.get("xattrs", {}).items()}
        for key, value in raw.get("xattrs_b64", {}).items():
            xattrs[os.fsdecode(base64.b64decode(key))] = base64.b64decode(value)
        tree[path] = Entry(
            path=path,
            kind=raw["type"],
            mode=int(raw["mode"], 8),
            uid=raw["uid"],
            gid=raw["gid"],
            mtime_ns=raw["mtime_ns"],
            size=raw.get("size", 0),
            digest=raw.get("hash", ""),
            target=text_or_raw(raw, "target") or b"",
            xattrs=tuple(sorted((k, v) for k, v in xattrs.items() if k not in IGNORED_XATTRS)),
        )
    for path, first in groups.items():
        tree[path] = replace(tree[path], group=first)
    return tree


def path_of(entry: dict[str, Any]) -> bytes:
    """Give the raw path of an entry."""
    return text_or_raw(entry, "path") or b""


def text_or_raw(entry: dict[str, Any], key: str) -> bytes | None:
    """Give the bytes of ``key`` or ``key_b64``, ``None`` where neither is there."""
    if key in entry:
        return str(entry[key]).encode()
    if f"{key}_b64" in entry:
        return base64.b64decode(entry[f"{key}_b64"], validate=True)
    return None


def tree_hash(entries: Iterable[dict[str, Any]]) -> str:
    """Recompute a ``tree_hash`` from a file list's entries."""
    hasher = blake3()
    for entry in entries:
        path = path_of(entry)
        if not path:
            continue
        kind = entry["type"]
        mode = "0777" if kind == "symlink" else entry["mode"]
        payload = entry["hash"].encode() if kind == "file" else b""
        if kind == "symlink":
            payload = text_or_raw(entry, "target") or b""
        hasher.update(path + b"\0" + KINDS[kind] + mode.encode() + payload + b"\0")
    return str(hasher.hexdigest())


def object_size(carrier: Carrier) -> int:
    """Tell how many bytes the object of a carrier has; the header of a frame says it, too."""
    if not carrier.compressed:
        return carrier.status.st_size
    return zstandard.get_frame_parameters(carrier.path.read_bytes()).content_size


def object_bytes_problem(carrier: Carrier) -> str:
    """Hash what a carrier holds; say what is wrong, or nothing."""
    hasher = blake3()
    with carrier.path.open("rb") as stream:
        if carrier.compressed:
            raw = stream.read()
            try:
                if not zstandard.get_frame_parameters(raw).has_checksum:
                    return f"{carrier.path}: no checksum"
                hasher.update(zstandard.ZstdDecompressor().decompress(raw, allow_extra_data=False))
            except zstandard.ZstdError as error:
                return f"{carrier.path}: {error}"
        while piece := stream.read(PIECE_BYTES):
            hasher.update(piece)
    if hasher.hexdigest() == carrier.digest:
        return ""
    return f"{carrier.path}: its bytes hash to {hasher.hexdigest()}"


def _check_store_toml(store: Store) -> str:
    say = store.problems.append
    values = dict(_flat(tomllib.loads((store.path / "store.toml").read_text())))
    if values.get("format") != 1:
        say(f"store.toml: format is {values.get('format')!r}")
    if values.get("hash") != "blake3":
        say(f"store.toml: hash is {values.get('hash')!r}")
    if not any(STORE_ID_KEY.search(key) for key in values):
        say(f"store.toml: no store id among {sorted(values)}")
    if values.get("phase") not in PHASES:
        say(f"store.toml: phase is {values.get('phase')!r}")
    return str(values.get("phase"))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _read_objects(store: Store) -> None:
    owner = store.path.stat().st_uid
    root = store.path / "objects"
    for shard in sorted(root.iterdir()):
        if not re.fullmatch("[0-9a-f]{2}", shard.name) or not shard.is_dir():
            store.problems.append(f"objects/{shard.name}: not a shard")
            continue
        for path in sorted(shard.iterdir()):
            match = OBJECT.match(path.name)
            if match is None or not path.name.startswith(shard.name):
                store.problems.append(f"objects/{shard.name}/{path.name}: not an object's name")
                continue
            mode = int(match[3], 8) if match[3] else None
            carrier = Carrier(path, match[1], match[2] == ".zst", mode, path.lstat())
            store.carriers.setdefault(match[1], []).append(carrier)
            store.problems += [f"objects/{path.name}: {p}" for p in _carrier(carrier, owner)]
    for digest, carriers in store.carriers.items():
        modes = [stat.S_IMODE(c.status.st_mode) for c in carriers if not c.compressed]
        if len(modes) != len(set(modes)):
            store.problems.append(f"objects: {digest} has two carriers of one mode: {modes}")
    if EMPTY in store.carriers:
        store.problems.append("objects: the empty file has an object")


def _carrier(carrier: Carrier, owner: int) -> Iterator[str]:
    status = carrier.status
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        yield "not a regular file"
        return
    if mode & FORBIDDEN_BITS:
        yield f"mode {mode:04o}"
    if carrier.named_mode is not None and carrier.named_mode != mode:
        yield f"mode {mode:04o} is not the one of its name"
    if status.st_uid != owner:
        yield f"belongs to {status.st_uid}, the store to {owner}"
    if attributes := set(os.listxattr(carrier.path)) - IGNORED_XATTRS:
        yield f"xattrs {sorted(attributes)}"
    if problem := object_bytes_problem(carrier):
        yield problem


def _read_package(store: Store, name: str) -> None:
    folder = store.path / "packages" / name

    def say(problem: str) -> None:
        store.problems.append(f"packages/{name}: {problem}")

    try:
        text = (folder / "files.json").read_bytes().decode()
        value = json.loads(text)
    except (OSError, ValueError) as error:
        say(f"files.json cannot be read: {error!r}")
        return
    if set(value) != {"format", "package_hash", "tree_hash", "entries"}:
        say(f"files.json has keys {sorted(value)}")
        return
    if (value["format"], value["package_hash"]) != (1, name):
        say(f"files.json says format {value['format']!r}, package {value['package_hash']!r}")
    entries = value["entries"]
    store.packages[name] = entries
    if list(_entry_lines(text)) != entries:
        say("files.json does not hold one entry a line")
    sound = [p for entry in entries for p in _entry_problems(entry)]
    for problem in sound:
        say(problem)
    if not sound:
        store.problems += [f"packages/{name}: {p}" for p in _list_problems(store, folder, value)]


def _list_problems(store: Store, folder: Path, value: dict[str, Any]) -> Iterator[str]:
    entries = value["entries"]
    yield from _order_problems(entries)
    yield from _object_problems(store, entries)
    if tree_hash(entries) != value["tree_hash"]:
        yield f"tree_hash is {value['tree_hash']}, the entries give {tree_hash(entries)}"
    yield from _copy_problems(folder, entries)


def _entry_lines(text: str) -> Iterator[Any]:
    for line in text.split("\n"):
        stripped = line.strip(" \t,")
        for candidate in (stripped, stripped.removesuffix("]}").rstrip(", ")):
            try:
                value = json.loads(candidate)
            except ValueError:
                continue
            if isinstance(value, dict) and "type" in value:
                yield value
            break


def _entry_problems(entry: dict[str, Any]) -> Iterator[str]:
    kind = entry.get("type")
    if kind not in KINDS:
        yield f"type {kind!r} in {entry}"
        return
    names = {"path"} if "path" in entry else {"path_b64"}
    extra = set(entry) - COMMON_KEYS - KEYS[kind] - names
    needed = {"mode", "uid", "gid", "mtime_ns"} | NEEDED[kind] | names
    if extra or needed - set(entry):
        yield f"keys too many {sorted(extra)}, missing {sorted(needed - set(entry))} in {entry}"
        return
    for key in ("path", "hardlink", "target"):
        yield from _raw_problems(entry, key)
    if not re.fullmatch("[0-7]{4}", str(entry["mode"])):
        yield f"mode {entry['mode']!r}"
    for key in ("uid", "gid", "mtime_ns", *({"size"} & set(entry))):
        if type(entry[key]) is not int:
            yield f"{key} {entry[key]!r} is not a whole number"
    if kind == "file" and not DIGEST.match(str(entry["hash"])):
        yield f"hash {entry['hash']!r}"
    if kind == "symlink" and not {"target", "target_b64"} & set(entry):
        yield f"a symlink without a target: {entry}"
    path = path_of(entry)
    if path and (b"\0" in path or {b"", b".", b".."} & set(path.split(b"/"))):
        yield f"path {path!r}"


def _raw_problems(entry: dict[str, Any], key: str) -> Iterator[str]:
    if key in entry and f"{key}_b64" in entry:
        yield f"both {key} and {key}_b64 in {entry}"
    if f"{key}_b64" in entry:
        try:
            base64.b64decode(entry[f"{key}_b64"], validate=True).decode()
        except UnicodeDecodeError:
            return
        yield f"{key}_b64 although it is UTF-8 in {entry}"


def _order_problems(entries: list[dict[str, Any]]) -> Iterator[str]:
    paths = [path_of(entry) for entry in entries]
    if not paths or paths[0] != b"" or entries[0]["type"] != "directory":
        yield "the first entry is not the root"
    if any(a >= b for a, b in pairwise(paths)):
        yield "the entries are not sorted by raw path bytes"
    directories = {p for p, e in zip(paths, entries, strict=True) if e["type"] == "directory"}
    for path in paths[1:]:
        if path.rpartition(b"/")[0] not in directories:
            yield f"no directory above {path!r}"
    by_path = dict(zip(paths, entries, strict=True))
    for path, entry in by_path.items():
        first = text_or_raw(entry, "hardlink")
        if first is None:
            continue
        same = ("type", "hash", "size", "mode", "uid", "gid", "mtime_ns", "xattrs")
        other = by_path.get(first, {})
        if first > path or any(other.get(key) != entry.get(key) for key in same):
            yield f"{path!r} is no link of {first!r}"
        leads_on = text_or_raw(other, "hardlink")
        if leads_on not in {None, first}:
            yield f"{path!r} names {first!r}, which is not the group's first"


def _object_problems(store: Store, entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        if entry["type"] != "file":
            continue
        if entry["size"] == 0:
            if entry["hash"] != EMPTY:
                yield f"an empty file of hash {entry['hash']}"
            continue
        carriers = store.carriers.get(entry["hash"], [])
        wanted = int(entry["mode"], 8) & 0o755
        plain = [c for c in carriers if not c.compressed]
        if not carriers:
            yield f"object {entry['hash']} is missing ({entry.get('path')!r})"
        elif not any(_serves(carrier, wanted) for carrier in carriers):
            yield f"{entry['hash']} has no carrier of mode {wanted:04o} ({entry.get('path')!r})"
        for carrier in plain:
            if carrier.status.st_size != entry["size"]:
                yield f"{carrier.path.name} has {carrier.status.st_size} bytes"


def _serves(carrier: Carrier, wanted: int) -> bool:
    """Whether a carrier is the one for a mode; a compressed one only must be as readable."""
    mode = stat.S_IMODE(carrier.status.st_mode)
    return not wanted & ~mode & 0o444 if carrier.compressed else mode == wanted


def _copy_problems(folder: Path, entries: list[dict[str, Any]]) -> Iterator[str]:
    expected = {
        entry["path"]: entry["hash"]
        for entry in entries
        if entry["type"] == "file"
        and COPIES.match(entry.get("path", "/"))
        and "/" not in entry["path"]
    }
    found = set(os.listdir(folder)) - {"files.json"}
    if found != set(expected):
        yield f"holds {sorted(found)} beside files.json, not {sorted(expected)}"
    for name in found & set(expected):
        if blake3((folder / name).read_bytes()).hexdigest() != expected[name]:
            yield f"the copy of {name} differs from the package's"
