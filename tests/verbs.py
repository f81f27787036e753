"""Every verb of the command with a call that works, for tests that walk all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

import regrain
from tests.command import Regrain
from tests.trees import LIVE, Tree, describe

PACKAGE = "ab" * 32
TWIN = "ab" * 31 + "ff"
SHORT = "cd" * 16
NOBODY = 65534
UNKNOWN = "0123456789abcdef" * 4


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb and what to expect of it.

    Attributes:
        words: What does its work on the store of ``make_model``; ``{out}`` is a directory
            that is not there, ``{new}`` one that holds a package, ``{object}`` a digest,
            ``{pushed}`` where a package was pushed to that the store lacks.
        ledger: Whether it opens the ledger.
        changes: Whether it changes the store.
        dry: What must be said to leave the store alone; None where nothing has to.
        named: The place of a package's hash among the words, None if it takes none.
        json: Whether it takes ``--json``.
        before: Calls that must be made first, for its work to be there.
    """

    words: tuple[str, ...] = ()
    ledger: bool = True
    changes: bool = False
    dry: tuple[str, ...] | None = None
    named: int | None = None
    json: bool = True
    before: tuple[tuple[str, ...], ...] = ()


VERBS = {
    "plan": Verb(ledger=False),
    "init": Verb(changes=True, dry=("-n",)),
    "migrate": Verb(("--jobs", "1"), changes=True, dry=("-n",)),
    "pause": Verb(ledger=False, changes=True, dry=("-n",)),
    "resume": Verb(ledger=False, changes=True, dry=("-n",), before=(("pause",),)),
    "set": Verb(("jobs=1",), ledger=False, changes=True, dry=("-n",)),
    "status": Verb(),
    "verify": Verb((), ledger=False, named=0),
    "list": Verb(ledger=False),
    "show": Verb((PACKAGE,), ledger=False, named=0),
    "files": Verb((PACKAGE,), ledger=False, named=0),
    "cat": Verb((PACKAGE, "manifest.toml"), ledger=False, named=0, json=False),
    "checkout": Verb((PACKAGE, "{out}"), ledger=False, dry=("-n",), named=0),
    "add": Verb(("{new}",), changes=True, dry=("-n",)),
    "remove": Verb((PACKAGE, "--execute"), changes=True, dry=(), named=0),
    "exclude": Verb((PACKAGE,), changes=True, dry=("-n",), named=0),
    "owners": Verb(("{object}",)),
    "gc": Verb(("--execute", "--grace", "0"), changes=True, dry=()),
    "repack": Verb(("--compress", "all", "--execute"), changes=True, dry=()),
    "doctor": Verb(),
    "cutover": Verb(("--no-backup",), changes=True, dry=("-n",), before=(("migrate",),)),
    "cleanup": Verb(
        ("--execute",),
        changes=True,
        dry=(),
        before=(("migrate",), ("cutover", "--no-backup")),
    ),
    "rollback": Verb((PACKAGE,), changes=True, dry=("-n",), named=0),
    "why": Verb((PACKAGE,), named=0),
    "rehearse": Verb(("--sample", "3"), dry=("-n",)),
    "serve": Verb(("--once",), json=False),
    "report": Verb(("-o", "{out}.html")),
    "backup": Verb(("mark", "a note"), changes=True, dry=("-n",)),
    "push": Verb((PACKAGE, "file://{out}"), ledger=False, dry=("-n",), named=0),
    "pull": Verb(("--all", "file://{pushed}"), changes=True, dry=("-n",)),
}
STORELESS = {"remote"}
"""Groups of verbs that take no store; what walks all verbs leaves them to tests of their own."""


@dataclass(frozen=True, slots=True)
class Model:
    """A store with something to do for every verb."""

    path: Path
    new: Path
    object: str
    pushed: Path

    def words(self, verb: str, out: Path, *, dry: bool = False) -> list[str]:
        """The words of a call that works, ``-n`` or without ``--execute`` if ``dry``."""
        row = VERBS[verb]
        found = [verb, *row.words]
        if dry and row.dry is not None:
            found = [word for word in found if word != "--execute"] + [*row.dry]
        places = {"out": out, "new": self.new, "object": self.object, "pushed": self.pushed}
        return [word.format(**places) for word in found]

    def ready(self, verb: str) -> None:
        """Bring the store to where a verb has something to do."""
        for words in VERBS[verb].before:
            Regrain(self.path, {"REGRAIN_MIGRATION__SETTLE": "0"})(*words)

    def copied(self, place: Path) -> Model:
        """The same store elsewhere, hard links and all."""
        subprocess.run(["cp", "-a", "--", self.path, place], check=True)
        return Model(place, self.new, self.object, self.pushed)


def make_model(place: Path) -> Model:
    """Migrated packages, a pending one, a directory to add, an object that nobody holds."""
    store = place / "store"
    command = Regrain(store)
    for name in (PACKAGE, TWIN, SHORT, "ef" * 32):
        make_package(store / name, name[:2] + name[-2:])
    for words in (["init"], ["migrate"], ["remove", "ef" * 32, "--execute"]):
        command(*words)
    make_package(store / ("12" * 32), "pending")
    command("init")
    make_package(place / "new", "new")
    (found,) = {
        path.name
        for path in (store / "objects").glob("*/*")
        if b"abab" in path.read_bytes() and len(path.name) == 64 and path.stat().st_size == 9
    }
    elsewhere = place / "elsewhere"
    make_package(elsewhere / ("34" * 32), "pushed")
    for words in (["init"], ["push", "--all", f"file://{place}/pushed"]):
        Regrain(elsewhere)(*words)
    return Model(store, place / "new", found, place / "pushed")


def make_package(path: Path, name: str) -> None:
    """A small package; its one program holds its own name."""
    with Tree(path, Random(name)) as tree:
        describe(tree, name, "1.0")
        tree.file(LIVE + b"/bin/run", f"run {name}\n".encode(), 0o755)
        tree.file(LIVE + b"/share/long", b"a line that shrinks\n" * 600)
        for number in range(3):
            tree.file(LIVE + b"/share/%d" % number, b"%d\n" % number * 9)


def another_user() -> dict[str, str] | None:
    """The environment and ``python`` with which another user can run regrain, if one can."""
    source = Path(regrain.__file__).parent.parent
    tests = Path(__file__).parent.parent
    folders = [str(source), str(tests), *(path for path in sys.path if path.endswith("-packages"))]
    environment = {"PYTHONPATH": ":".join(folders), "PATH": "/usr/bin:/bin"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        if python is not None and _works(python, environment):
            return {**environment, "python": python}
    return None


def _works(python: str, environment: dict[str, str]) -> bool:
    program = "import regrain.cli, blake3, msgspec, sqlalchemy, zstandard, tests.zygote"
    try:
        done = subprocess.run(
            [python, "-c", program],
            env=environment,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except OSError:  # it lies where that user may not look
        return False
    return done.returncode == 0
