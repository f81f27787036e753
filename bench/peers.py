"""The peers: which programs, where they come from, how much of regrain's work they do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import deeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.job import Job
    from bench.results import Results

FILES_OF_FULL = 179_606


@dataclass(frozen=True, slots=True)
class Peer:
    """One program, used for one purpose.

    Attributes:
        name: What it is called on the command line.
        does: What it does of what regrain does, for the table.
        run: Does it, measured and proven.
        program: What must be on the PATH.
        debian: The package that brings it.
        seconds: What a round takes on the full corpus with two cores, copies and proofs
            included; to foretell, not to judge.
        reflinks: Measured where files can share blocks: "only", "too" or "no".
        cold: Whether it is measured with dropped caches, too.
    """

    name: str
    does: str
    run: Callable[[Job], None]
    program: str
    debian: str
    seconds: int
    reflinks: str = "no"
    cold: bool = False


PEERS = (
    Peer(
        "regrain",
        "all of it: shares files, keeps all metadata, verifies, durable, can be undone",
        deeds.regrain,
        "python3",
        "python3",
        seconds=65,
        reflinks="too",
        cold=True,
    ),
    Peer("b3sum", "hashes", deeds.b3sum, "b3sum", "b3sum", 10, "too", cold=True),
    Peer(
        "floor",
        "loops in Python: calls that no migration can do without, with no program around them",
        deeds.floor,
        "python3",
        "python3",
        seconds=30,
    ),
    Peer("cp-link", "links every file", deeds.link_copy, "cp", "coreutils", 16, cold=True),
    Peer("cp", "copies every file", deeds.plain_copy, "cp", "coreutils", 40, "too", cold=True),
    Peer("cp-reflink", "reflinks every file", deeds.reflink_copy, "cp", "coreutils", 20, "only"),
    Peer(
        "hardlink",
        "links equal files in place; compares bytes",
        deeds.hardlink,
        "hardlink",
        "util-linux",
        50,
        cold=True,
    ),
    Peer(
        "jdupes",
        "links equal files in place, loses modes and times; compares bytes",
        deeds.jdupes,
        "jdupes",
        "jdupes",
        55,
    ),
    Peer(
        "jdupes-dedupe",
        "lets equal files share blocks in place",
        deeds.jdupes_dedupe,
        "jdupes",
        "jdupes",
        55,
        "only",
    ),
    Peer("rdfind", "finds equal files, changes nothing", deeds.rdfind, "rdfind", "rdfind", 55),
    Peer(
        "nix",
        "copies into a store without modes, owners, times; links equal files; SQLite",
        deeds.nix,
        "nix-store",
        "nix-bin",
        110,
    ),
    Peer(
        "ostree",
        "copies into a store of objects, with modes and owners, without times; fsync",
        deeds.ostree,
        "ostree",
        "ostree",
        120,
    ),
    Peer("borg", "copies into a chunk store", deeds.borg, "borg", "borgbackup", 70),
    Peer("restic", "copies into a chunk store, compressed", deeds.restic, "restic", "restic", 60),
)
BY_NAME = {peer.name: peer for peer in PEERS}


def find(
    wanted: Iterable[str],
    results: Results,
    say: Callable[[str], None],
    *,
    install: bool,
    known: Sequence[Peer] = PEERS,
) -> list[Peer]:
    """Have the peers, installing those that are not there.

    Args:
        wanted: Their names.
        results: Takes each one's version, or why it is missing.
        say: Called with a line for each that is missing.
        install: Whether Debian packages may be installed; that takes root.
        known: All there are, regrain first.

    Returns:
        Those that can be measured. regrain is always one of them, and the first.
    """
    wanted = {"regrain", *wanted}
    chosen = [peer for peer in known if peer.name in wanted]
    missing = {peer.debian for peer in chosen if not shutil.which(peer.program)}
    why = _install(sorted(missing), say) if missing and install else "not installed"
    found = []
    for peer in chosen:
        if shutil.which(peer.program):
            results.document["tools"][peer.name] = _version(peer)
            found.append(peer)
        else:
            results.document["tools"][peer.name] = f"missing: {why}"
            results.problem(f"{peer.name} is missing (Debian: {peer.debian}): {why}")
            say(f"{peer.name} is missing and is left out: {why}")
    results.save()
    return found


def _install(packages: list[str], say: Callable[[str], None]) -> str:
    """Install Debian packages one by one, so that one which is not to be had harms no other.

    Returns:
        Why some are still missing, if they are.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "not installed, and only root on Debian can install it"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, capture_output=True, check=False)
    why = ""
    for package in packages:
        say(f"installing {package}")
        done = subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["apt-get failed"]
            why = lines[-1]
    return why


def _version(peer: Peer) -> str:
    """Ask a program for its version; the first number it says."""
    if peer.name == "regrain":
        from importlib import metadata

        return metadata.version("regrain")
    for question in ("--version", "version"):
        done = subprocess.run([peer.program, question], capture_output=True, text=True, check=False)
        number = re.search(r"\d+(?:\.\d+)+", done.stdout)
        if number:
            return number.group()
    return "of unknown version"
