"""The full circle on copies of packages: every step there is, each timed and judged."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from regrain import disk
from regrain.app import backing_up, lifecycle, undoing, verification
from regrain.app.initialising import initialise
from regrain.app.logs import limits_of
from regrain.app.migration import Migration
from regrain.app.rollback import rollback
from regrain.errors import NoSpaceError, RegrainError, path_of, reason
from regrain.maintain.audit import Level
from regrain.migrate.estimate import Taken
from regrain.migrate.foreground import Foreground
from regrain.migrate.specimen import Specimen, copy, difference, forget_cached, taken
from regrain.model.clock import monotonic
from regrain.model.status import Status
from regrain.store.legacy import LegacyPackage
from regrain.store.packages import FileLevelPackage
from regrain.store.root import StoreRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from regrain.migrate.foreground import Latency
    from regrain.migrate.sample import Candidate
    from regrain.migrate.shadow import Comparison
    from regrain.migrate.specimen import Source
    from regrain.settings import Settings

_WORDS_MAX = 5
"""So many packages of one step are named, of those that something is wrong with."""


class Stage(NamedTuple):
    """A step that was made.

    Attributes:
        name: The step.
        seconds: What it took.
        allocated: Bytes on disk that the copy takes after it, each inode once.
        inodes: Likewise inodes.
        free_bytes: What the file system has left after it; others use it, too.
        what: What it did, in a few words.
        is_well: Whether nothing was found that speaks against a migration.
    """

    name: str
    seconds: float
    allocated: int
    inodes: int
    free_bytes: int
    what: str
    is_well: bool


@dataclass(slots=True)
class Course:
    """How a rehearsal went.

    Attributes:
        stages: The steps made, in order.
        problems: What speaks against a migration, each in a sentence.
        specimens: What was copied.
        latency: Of a reader alone, and beside the migration; None if it did not come to that.
        comparison: Of both layouts, by the gate of the cutover.
        taken: What the copy took on disk; None if it did not come to the end.
    """

    stages: list[Stage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    specimens: list[Specimen] = field(default_factory=list)
    latency: tuple[Latency, Latency] | None = None
    comparison: Comparison | None = None
    taken: Taken | None = None


class Cast(NamedTuple):
    """What a rehearsal is made with.

    Attributes:
        source: Where the packages are.
        sample: Which of them.
        seed: Of what is read when.
    """

    source: Source
    sample: list[Candidate]
    seed: int


class Circle:
    """Takes copies of packages around the full circle, through the facades a user has.

    Args:
        cast: The packages.
        path: A directory for the copy, which is made here.
        settings: As they will be for the store.
        on_stage: Told each step: its number from 1 and how many there are before it, then
            the finished one.
        stopping: Asked often; True ends it.
    """

    def __init__(
        self,
        cast: Cast,
        path: str,
        settings: Settings,
        on_stage: Callable[[int, int, str | Stage], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._source, self._sample, self._seed = cast
        self._path = path
        self._settings = for_copy(settings)
        self._on_stage = on_stage
        self._stopping = stopping
        self._sizes: dict[str, int] = {}
        self.course = Course()

    def go(self) -> Course:
        """Make all steps; one that finds something wrong is the last, but for the first.

        A package that cannot be copied cannot be migrated either, but the others can.
        """
        steps = (
            ("copy", self._copy),
            ("init", self._init),
            ("listen", self._listen),
            ("migrate", self._migrate),
            ("verify deep", self._verify_deep),
            ("read", self._read),
            ("cutover", self._cutover),
            ("cleanup", self._cleanup),
            ("verify", self._verify),
            ("rollback", self._rollback),
            ("compare", self._compare),
            ("purge", self._purge),
        )
        with contextlib.ExitStack() as self._held:
            self._make(steps)
        self._add_up()
        return self.course

    def _make(self, steps: tuple[tuple[str, Callable[[], str]], ...]) -> None:
        for number, (name, step) in enumerate(steps, 1):
            self._on_stage(number, len(steps), name)
            known = len(self.course.problems)
            begin = monotonic()
            what = self._try(name, step)
            seconds = monotonic() - begin
            if self._stopping():
                break
            is_well = len(self.course.problems) == known
            stage = self._stage(name, seconds, what, is_well=is_well)
            self.course.stages.append(stage)
            self._on_stage(number, len(steps), stage)
            if not self.course.specimens or not (is_well or name == "copy"):
                break

    def _try(self, name: str, step: Callable[[], str]) -> str:
        """Make a step; what it raises speaks against a migration."""
        try:
            return step()
        except (RegrainError, BrokenExecutor) as error:
            self.course.problems.append(f"{name}: {error}")
        except OSError as error:
            where = f"'{os.fsdecode(path_of(error))}': " if path_of(error) else ""
            self.course.problems.append(f"{name}: {where}{reason(error)}")
        return "failed"

    def _stage(self, name: str, seconds: float, what: str, *, is_well: bool) -> Stage:
        with disk.Closing(disk.open_directory(self._path)) as top:
            allocated, inodes = taken(top)
            space = os.fstatvfs(top)
        self._sizes[name] = allocated
        return Stage(
            name, seconds, allocated, inodes, space.f_bavail * space.f_frsize, what, is_well
        )

    def _add_up(self) -> None:
        """Say what the copy took, if it came so far that this is known."""
        if "cleanup" in self._sizes:
            self.course.taken = Taken(
                fixed=self._sizes["init"] - self._sizes["copy"],
                before=self._sizes["copy"],
                after=self._sizes["cleanup"],
                objects=self._sizes["objects"],
            )

    def _against(self, found: list[str]) -> None:
        """Note what speaks against a migration, the first of it word for word."""
        self.course.problems += found[:_WORDS_MAX]
        if len(found) > _WORDS_MAX:
            self.course.problems.append(f"and {len(found) - _WORDS_MAX:,} more of this kind")

    @property
    def _root(self) -> StoreRoot:
        return StoreRoot(self._path)

    # the steps

    def _copy(self) -> str:
        self._make_top()
        failures, gone, size = [], 0, 0
        for candidate in self._sample:
            if self._stopping():
                break
            try:
                self.course.specimens.append(copy(self._source, candidate, self._path))
                size += candidate.size
            except FileNotFoundError:
                gone += 1
            except NoSpaceError:
                raise
            except RegrainError as error:
                name = f"{candidate.name} {candidate.version}".strip()
                label = f" ({name})" if name else ""
                error.package = None
                failures.append(f"package {candidate.package_hash}{label}: {error}")
        self._against(failures)
        if not self.course.specimens and not self._stopping():
            self._against(["no package of the sample could be copied"])
        with disk.Closing(disk.open_directory(self._path)) as top:
            forget_cached(top)
        left_out = f", {len(failures)} failed" if failures else ""
        left_out += f", {gone} went meanwhile" if gone else ""
        return f"{_packages(len(self.course.specimens))} copied and compared{left_out}"

    def _make_top(self) -> None:
        """Make the copy's directory, of the same owner and mode as the original's."""
        parent, _, name = self._path.rpartition("/")
        status = os.fstat(self._source.top)
        with disk.Closing(disk.open_directory(parent)) as at:
            disk.make_directory(name, at)
            with disk.Closing(disk.open_directory(name, at)) as top:
                if os.geteuid() == 0:
                    os.fchown(top, status.st_uid, status.st_gid)
                os.fchmod(top, status.st_mode & 0o7777)

    def _init(self) -> str:
        return f"{_packages(initialise(self._path).queued)} queued"

    def _listen(self) -> str:
        """Start a reader, who is heard alone first; he stays until the migration has ended."""
        names = [one.candidate.package_hash for one in self.course.specimens]
        self._reader = self._held.enter_context(Foreground(self._path, names, self._seed))
        return f"{self._reader.alone.reads:,} reads timed"

    def _migrate(self) -> str:
        names = [one.candidate.package_hash for one in self.course.specimens]
        migration = Migration(self._root, self._settings)
        done = migration.run(stopping=self._stopping)
        self.course.latency = self._reader.alone, self._reader.stop()
        rows = migration.rows(Status.FAILED)
        self._against([f"package {row.package_hash}: {row.error_message}" for row in rows])
        left = len(names) - done.completed - len(rows)
        if left and not done.stopped:
            self._against([f"{_packages(left)} left pending"])
        return f"{_packages(done.completed)} migrated"

    def _verify_deep(self) -> str:
        return self._audit(Level.DEEP)

    def _verify(self) -> str:
        return self._audit(Level.FULL)

    def _audit(self, level: Level) -> str:
        found = verification.verify(
            self._root,
            self._settings,
            [],
            level=level,
            subset=None,
            on_result=lambda _: None,
            stopping=self._stopping,
        )
        damages = [f"{one.package_hash or one.object}: {one.reason}" for one in found.audit.damages]
        changes = [f"{one.package_hash}: {one.reason}" for one in found.audit.changes]
        self._against(damages + changes)
        if found.is_damaged and not damages:
            self._against([found.ledger_problem or "the ledger does not agree with the disk"])
        return _count(found.audit.carriers, "object", "objects") + " hashed"

    def _read(self) -> str:
        root, files = self._root, 0
        with disk.Closing(disk.open_directory(f"{self._path}/objects")) as objects:
            self._sizes["objects"] = taken(objects)[0]
        found = []
        for one in self._going():
            name = one.candidate.package_hash
            published = FileLevelPackage(root.packages, root.objects, name)
            for package in (published, LegacyPackage(root.fd, name)):
                why = difference(one, package, self._source)
                if why:
                    where = package.layout.value.replace("_", " ")
                    found.append(f"package {name} read from {where}: {why}")
            files += one.candidate.files
        self._against(found)
        return _count(files, "file", "files") + " read from both layouts"

    def _going(self) -> list[Specimen]:
        """Return what was copied, unless a stop is asked for."""
        return [] if self._stopping() else self.course.specimens

    def _cutover(self) -> str:
        root = self._root
        backing_up.mark_backup(root, "a rehearsal, whose originals are the backup")
        done = lifecycle.cutover(root, self._settings, stopping=self._stopping)
        self.course.comparison = done.comparison
        self._against([f"the gate is closed: {one.check}: {one.reason}" for one in done.failures])
        return "switched" if done.switched else "the gate is closed"

    def _cleanup(self) -> str:
        done = undoing.cleanup(self._root, stopping=self._stopping, logs=limits_of(self._settings))
        self._against([f"package {one.package_hash} is kept: {one.why}" for one in done.kept])
        return _count(done.packages, "directory", "directories") + " removed"

    def _rollback(self) -> str:
        done = rollback(self._root, self._settings, stopping=self._stopping)
        self._against([f"package {one.package_hash}: {one.why}" for one in done.failures])
        return _count(done.restored, "directory", "directories") + " rebuilt"

    def _compare(self) -> str:
        root = self._root
        found = []
        for one in self._going():
            name = one.candidate.package_hash
            why = difference(one, LegacyPackage(root.fd, name), self._source)
            if why:
                found.append(f"package {name} did not come back as it was: {why}")
        self._against(found)
        same = len(self.course.specimens) - len(found)
        return f"{_packages(same)} as before, to the last attribute"

    def _purge(self) -> str:
        done = undoing.purge(self._root, stopping=self._stopping)
        return _count(done.objects, "object", "objects") + " dropped"


def for_copy(settings: Settings) -> Settings:
    """Return the settings for the copy: those of the store, but for what would end early.

    Nobody else writes there, so nothing has to settle; legacy directories stay until cleanup,
    and objects until the purge, so that each step can be judged by itself. What would make the
    migration wait, or go back of itself, ends it, and so is told.
    """
    return replace(
        settings,
        store=replace(
            settings.store,
            path=None,
            migration_enabled=True,
            keep_old_packages=True,
            use_file_level_storage=True,
        ),
        migration=replace(
            settings.migration,
            settle=0.0,
            space_wait=0.0,
            on_trigger="pause",
            cleanup_on_rollback=False,
        ),
    )


def _count(amount: int, singular: str, plural: str) -> str:
    return f"{amount:,} {singular if amount == 1 else plural}"


def _packages(amount: int) -> str:
    return _count(amount, "package", "packages")
