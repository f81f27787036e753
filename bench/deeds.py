"""How each peer does its work on a corpus, and how it is proven that it did.

Each of these functions has an empty directory of its own in `job.place`. The commands
are the ones that a user of the peer would choose for the work that regrain does; where a
peer is made to do less than regrain, or more, its entry in `bench.peers` says so.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import floor as floor_
from bench.trees import digest, usage

if TYPE_CHECKING:
    from bench.job import Command, Job

B3SUM = 'find "$0" -type f -print0 | xargs -0 -r -n 2000 b3sum --num-threads 2'
DIGITS = 64
LARGE = 64 << 10
STORE = "regrain init + migrate"
VERIFY = "regrain verify"
KEPT = ("objects", "packages", "migration", "store.toml", "state.sqlite")
"""What of a store remains when the legacy directories are gone."""


def b3sum(job: Job) -> None:
    """Hash every file."""
    with tempfile.TemporaryFile() as output:
        command: Command = ["sh", "-c", B3SUM, job.corpus.path]
        job.step("b3sum", command, reads=job.corpus.path, output=output.fileno())
        output.seek(0)
        hashes = [line.removeprefix(b"\\")[:DIGITS] for line in output]
    facts = job.corpus.facts
    job.prove("lines", len(hashes), facts.files)
    job.prove("hashes", len(set(hashes)), facts.contents + bool(facts.empty))


def floor(job: Job) -> None:
    """Do with every file what a migration must, and nothing else, a little more each time."""
    for stage, name in enumerate(floor_.STAGES):
        place = job.place / str(stage)
        command: Command = [sys.executable, floor_.__file__, job.corpus.path, place, str(stage)]
        job.step(f"floor: {'+ ' if stage else ''}{name}", command, reads=job.corpus.path)
    job.prove("links", len(list(place.glob("objects/*/*"))), job.corpus.facts.carriers)


def link_copy(job: Job) -> None:
    """Link every file."""
    _copy(job, "cp -al", ["cp", "-al"])


def plain_copy(job: Job) -> None:
    """Copy every file."""
    _copy(job, "cp -a", ["cp", "-a", "--reflink=never"])


def reflink_copy(job: Job) -> None:
    """Reflink every file."""
    _copy(job, "cp -a --reflink", ["cp", "-a", "--reflink=always"])


def _copy(job: Job, name: str, command: Command) -> None:
    copy = job.place / "copy"
    job.step(name, [*command, job.corpus.path, copy], reads=job.corpus.path)
    job.prove("files", usage(copy).files, job.corpus.facts.files + job.corpus.facts.symlinks)
    job.leaves(name, copy)


def regrain(job: Job) -> None:
    """Migrate a store, then verify it in full."""
    store = job.copy("store")
    command: Command = [sys.executable, "-m", "regrain", "--store", store]
    job.step("regrain init", [*command, "init"], reads=store)
    job.step("regrain migrate", [*command, "migrate"], reads=store)
    job.together(STORE, "regrain init", "regrain migrate")
    _prove_migrated(job, store, command)
    job.leaves(STORE, store)
    job.steps["regrain, legacy removed"] = {"work": "space", "peer": "regrain"}
    job.leaves("regrain, legacy removed", *(store / name for name in KEPT))
    job.step(VERIFY, [*command, "verify"], reads=store, work="verify")


def _prove_migrated(job: Job, store: Path, command: Command) -> None:
    """Let the disk say, and not only regrain, that all was migrated."""
    names = {path.name[:DIGITS] for path in (store / "objects").glob("*/*")}
    job.prove("objects", len(names), job.corpus.facts.contents)
    packages = len(job.corpus.packages)
    job.prove("file lists", len(list(store.glob("packages/*/files.json"))), packages)
    status = json.loads(job.call([*command, "status", "--json"]))
    job.prove("migrated packages", status["migrated_packages"], packages)
    job.prove("failed packages", status["failed_packages"], 0)


def hardlink(job: Job) -> None:
    """Link files of the same bytes, mode and owner, in place."""
    tree = job.copy()
    job.step("hardlink", ["hardlink", "-q", "-t", tree], reads=tree)
    job.prove("inodes with bytes", _inodes_with_bytes(tree), job.corpus.facts.carriers)
    job.leaves("hardlink", tree)


def jdupes(job: Job) -> None:
    """Link files of the same bytes, in place."""
    tree = job.copy()
    job.step("jdupes -L", ["jdupes", "-q", "-r", "-L", tree], reads=tree)
    job.prove("inodes with bytes", _inodes_with_bytes(tree), job.corpus.facts.contents)
    job.leaves("jdupes -L", tree)


def jdupes_dedupe(job: Job) -> None:
    """Let files of the same bytes share blocks, in place."""
    tree = job.copy()
    job.step("jdupes -B", ["jdupes", "-q", "-r", "-B", tree], reads=tree)
    job.leaves("jdupes -B", tree)
    job.prove("large files that share no blocks", _unshared(job, tree), 0)


def _unshared(job: Job, tree: Path) -> int:
    """Count the large files of equal bytes of which the kernel says that they share nothing.

    Small ones tell nothing: btrfs keeps them in its tree, where there is nothing to share.
    """
    same: dict[bytes, list[Path]] = {}
    for path in tree.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size >= LARGE:
            same.setdefault(digest(path), []).append(path)
    doubles = [path for paths in same.values() if len(paths) > 1 for path in paths]
    return sum("shared" not in job.call(["filefrag", "-v", path]) for path in doubles)


def _inodes_with_bytes(tree: Path) -> int:
    inodes = set()
    for directory, _, names in os.walk(tree):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            if status.st_size and stat.S_ISREG(status.st_mode):
                inodes.add(status.st_ino)
    return len(inodes)


def rdfind(job: Job) -> None:
    """Find the duplicates, and change nothing."""
    listing = job.place / "duplicates.txt"
    command: Command = ["rdfind", "-dryrun", "true", "-outputname", listing, job.corpus.path]
    job.step("rdfind -dryrun", command, reads=job.corpus.path)
    with listing.open("rb") as lines:
        later = sum(line.startswith(b"DUPTYPE_WITHIN") for line in lines)
    facts = job.corpus.facts
    job.prove("duplicates", later, facts.files - facts.empty - facts.contents)


def nix(job: Job) -> None:
    """Fill a store, then link the same files in it, then check every file."""
    configuration = job.place / "configuration"
    configuration.mkdir()
    (configuration / "nix.conf").write_text("build-users-group =\nsandbox = false\n")
    job.environment = {"NIX_CONF_DIR": str(configuration), "HOME": str(job.place)}
    root = job.place / "root"
    command: Command = ["nix-store", "--store", root]
    packages = [job.corpus.path / package for package in job.corpus.packages]
    job.step("nix-store --add", [*command, "--add", *packages], reads=job.corpus.path)
    job.step("nix-store --optimise", [*command, "--optimise"], reads=root)
    job.together("nix-store --add, --optimise", "nix-store --add", "nix-store --optimise")
    facts = job.corpus.facts
    if not facts.symlinks:  # these it links, too, and they are not among our facts
        links = len(os.listdir(root / "nix/store/.links"))
        job.prove("links", links, facts.executables)
    job.leaves("nix-store --add, --optimise", root)
    verify = "nix-store --verify --check-contents"
    job.step(verify, [*command, "--verify", "--check-contents"], reads=root, work="verify")


def ostree(job: Job) -> None:
    """Commit every package into a bare repository, then check it."""
    repository = job.place / "repository"
    command: Command = ["ostree", f"--repo={repository}"]
    job.call([*command, "init", "--mode=bare"])
    each = 'for name in *; do ostree --repo="$0" commit -b "p/$name" --tree=dir="$name"; done'
    job.step(
        "ostree commit",
        ["sh", "-e", "-c", f'cd "$1"; {each}', repository, job.corpus.path],
        reads=job.corpus.path,
    )
    facts = job.corpus.facts
    if not facts.symlinks:
        objects = sum(1 for _ in (repository / "objects").glob("*/*.file"))
        job.prove("objects", objects, facts.carriers + facts.carriers_empty)
    job.leaves("ostree commit", repository)
    job.step("ostree fsck", [*command, "fsck"], reads=repository, work="verify")


def borg(job: Job) -> None:
    """Bring everything into a chunk store, uncompressed, then check it."""
    job.environment = {"BORG_BASE_DIR": str(job.place), "HOME": str(job.place)}
    repository = job.place / "repository"
    job.call(["borg", "init", "-e", "none", repository])
    archive = f"{repository}::all"
    job.step(
        "borg create",
        ["borg", "create", "-C", "none", archive, job.corpus.path],
        reads=job.corpus.path,
    )
    answer = json.loads(job.call(["borg", "info", "--json", archive]))
    job.prove("files", answer["archives"][0]["stats"]["nfiles"], job.corpus.facts.files)
    job.leaves("borg create", repository)
    verify: Command = ["borg", "check", "--verify-data", repository]
    job.step("borg check --verify-data", verify, reads=repository, work="verify")


def restic(job: Job) -> None:
    """Bring everything into a chunk store, compressed, then check it."""
    job.environment = {"RESTIC_PASSWORD": "bench", "HOME": str(job.place)}
    repository = job.place / "repository"
    command: Command = ["restic", "-r", repository, "--cache-dir", job.place / "cache"]
    job.call([*command, "init"])
    with tempfile.TemporaryFile() as output:
        job.step(
            "restic backup",
            [*command, "backup", "--json", job.corpus.path],
            reads=job.corpus.path,
            output=output.fileno(),
        )
        output.seek(0)
        *_, last = output
    job.prove("files", json.loads(last)["total_files_processed"], job.corpus.facts.files)
    job.leaves("restic backup", repository)
    check = [*command, "check", "--read-data"]
    job.step("restic check --read-data", check, reads=repository, work="verify")
