"""File lists as an attacker writes them: whole and with the right hash, but of an evil tree."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from blake3 import blake3

from tests.verbs import PACKAGE

Row = dict[str, Any]
OWNER: Row = {"uid": 0, "gid": 0, "mtime_ns": 0}
ROOT: Row = {"path": "", "type": "directory", "mode": "0755", **OWNER}
DEEP = 3000


def folder(path: str, **more: Any) -> Row:
    """A directory."""
    return {"path": path, "type": "directory", "mode": "0755", **OWNER, **more}


def link(path: str, target: str, **more: Any) -> Row:
    """A symbolic link."""
    return {"path": path, "type": "symlink", "mode": "0777", **OWNER, "target": target, **more}


def file(path: str, digest: str, size: int, **more: Any) -> Row:
    """A file whose bytes are an object's."""
    facts: Row = {"path": path, "type": "file", "mode": "0644", **OWNER}
    return {**facts, "hash": digest, "size": size, **more}


def forged(rows: Iterable[Row]) -> bytes:
    """The file list of these entries, sorted, with the hash that fits."""
    rows = sorted(rows, key=_path)
    hasher = blake3()
    for row in rows:
        if _path(row):
            hasher.update(_hashed(row))
    head = {"format": 1, "package_hash": PACKAGE, "tree_hash": hasher.hexdigest()}
    body = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return json.dumps(head)[:-1].encode() + b',"entries":[\n' + body.encode() + b"\n]}\n"


def _path(row: Row) -> bytes:
    if "path_b64" in row:
        return base64.b64decode(row["path_b64"])
    return str(row["path"]).encode()


def _hashed(row: Row) -> bytes:
    letter = {"file": b"f", "directory": b"d", "symlink": b"l0777"}[row["type"]]
    if row["type"] == "symlink":
        return _path(row) + b"\0" + letter + str(row["target"]).encode() + b"\0"
    payload = str(row.get("hash", "")).encode()
    return _path(row) + b"\0" + letter + str(row["mode"]).encode() + payload + b"\0"


def hostile(digest: str, size: int) -> dict[str, bytes]:
    """Lists that lead out, ask for too much, or for what cannot be.

    Args:
        digest: Of an object that is there.
        size: Of that object.
    """

    def one(**facts: Any) -> list[Row]:
        return [ROOT, {**file("f", digest, size), **facts}]

    def evil(path: str) -> bytes:
        return forged([ROOT, file(path, digest, size)])

    trees: dict[str, list[Row]] = {
        "below a link": [ROOT, link("out", "../victim"), file("out/evil", digest, size)],
        "link to the link": [ROOT, link("a", "b"), link("b", "a"), link("c", "a/../../victim")],
        "hard link out": one(hardlink="../victim/sub/kept"),
        "hard link below a link": [
            ROOT,
            link("out", "../victim"),
            file("z", digest, size, hardlink="out/sub/kept"),
        ],
        "hard link to itself": one(hardlink="f"),
        "long target": [ROOT, link("l", "x" * 5000)],
        "huge time": one(mtime_ns=10**40),
        "time before all times": one(mtime_ns=-(10**40)),
        "time of the last second": one(mtime_ns=(2**63 - 1) * 10**9),
        "owner that means nobody": one(uid=2**32 - 1, mode="4755"),
        "huge size": one(size=2**63 - 1),
        "sizes beyond a sum": [
            ROOT,
            *(file(f"{n}", f"{n:064x}", 2**63 - 1) for n in range(3)),
        ],
        "object that is not there": [ROOT, file("f", "0" * 64, 5)],
        "attribute that cannot be": one(xattrs={"user." + "n" * 300: ""}),
        "attribute too large": one(xattrs={"user.n": base64.b64encode(bytes(1 << 17)).decode()}),
        "attribute without a space": one(xattrs={"n": ""}),
        "deep": [ROOT, *(folder("/".join("d" * n)) for n in range(1, DEEP))],
        "manifest that is a link": [ROOT, link("manifest.toml", "../victim/manifest.toml")],
        "manifest that is a directory": [ROOT, folder("manifest.toml")],
        "huge manifest": [ROOT, file("manifest.toml", digest, 2**62)],
        "root that nobody may enter": [{**ROOT, "mode": "0000"}, file("f", digest, size)],
        "sticky set-id root": [{**ROOT, "mode": "7777"}, file("f", digest, size, mode="6755")],
    }
    made = {name: forged(rows) for name, rows in trees.items()}
    for path in ("../victim/sub/kept", "/tmp/evil", "a/../../victim/evil", ".", "..", "a//b"):
        made[f"path {path}"] = evil(path)
    made["raw path out"] = forged(
        [ROOT, {**folder(""), "path_b64": base64.b64encode(b"../\xff").decode()} | {"path": None}]
    )
    many = (b'{"path":"%06d","type":"directory"},\n' % n for n in range(50_000))
    made["entries without facts"] = forged([ROOT])[:-4] + b",\n" + b"".join(many) + b"]}\n"
    made["nothing but brackets"] = forged([ROOT])[:40] + b"[" * 200_000
    return made
