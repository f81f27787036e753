"""The work of ``verify --repair``: file lists, then objects, then legacy directories that rotted.

In this order, since file lists say which objects are needed, and legacy directories are made of
good objects. Every step may be killed and done again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from regrain.maintain import repair_lists, repair_objects
from regrain.maintain.need import check_space, need
from regrain.maintain.repair_lists import ListHealer
from regrain.maintain.repair_objects import Healer
from regrain.maintain.repaired import Outcome, Repair, Report, Subject
from regrain.maintain.restore import Restored, restore
from regrain.maintain.rollback import check_legacy, rotten_among
from regrain.store.locks import RunDirectory, StoreLock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from regrain.ledger import Ledger
    from regrain.maintain.need import Ways
    from regrain.maintain.restore import Failure
    from regrain.maintain.sources import Backup
    from regrain.store.root import StoreRoot


@dataclass(frozen=True, slots=True)
class Task:
    """What to look at once more, and how to heal it.

    Attributes:
        digests: Objects that are damaged, perhaps.
        packages: Packages whose published directory may be damaged.
        legacy: Packages whose legacy directory may have rotted.
        backups: Where else to look for what is good.
        ways: How legacy directories are rebuilt.
        jobs: Worker processes for what is compared.
        bytes_min: What is to be left free on disk by rebuilding them.
        inodes_min: Likewise.
    """

    digests: Sequence[str]
    packages: Sequence[str]
    legacy: Sequence[str]
    ways: Ways
    backups: Sequence[Backup] = field(default=())
    jobs: int = 1
    bytes_min: int = 0
    inodes_min: int = 0


def foresee(root: StoreRoot, ledger: Ledger, task: Task) -> Report:
    """Say what a repair would do; change nothing.

    What hangs on a file list that is damaged now shows only once that is healed.
    """
    report = Report()
    recorded = ledger.recorded_lists()
    for one in repair_lists.broken(root, recorded, task.packages):
        report.repairs.append(repair_lists.foresee(root, recorded, one, task.backups))
    for patient in repair_objects.diagnose(root, ledger, task.digests):
        report.repairs += repair_objects.foresee(root, patient, task.backups)
    rotten = _rotten(root, _suspects(report, task), task, lambda: False)
    report.repairs += [_of_legacy(name, why, Outcome.HEALED) for name, why in rotten.items()]
    return report


def repair(
    root: StoreRoot,
    ledger: Ledger,
    task: Task,
    *,
    on_repair: Callable[[Repair], None],
    stopping: Callable[[], bool],
) -> Report:
    """Heal what can be healed. The caller holds the run lock.

    Args:
        root: The store.
        ledger: Its ledger.
        task: What to look at.
        on_repair: Told each damaged thing when it is done with.
        stopping: Asked before each; True ends the run.
    """
    done = _Repairer(root, ledger, task, on_repair, stopping)
    with StoreLock(root, exclusive=False) as lock, RunDirectory(root) as run:
        done.heal_packages(lock, run, Subject.FILE_LIST)
        done.heal_objects(lock, run)
        done.heal_packages(lock, run, Subject.COPIES)
    if not done.report.stopped:
        done.heal_legacy()
    return done.report


class _Repairer:
    """Heals one kind of thing after the other, and keeps the report.

    Args:
        root: The store.
        ledger: Its ledger.
        task: What to look at.
        on_repair: Told each damaged thing when it is done with.
        stopping: Asked before each.
    """

    def __init__(
        self,
        root: StoreRoot,
        ledger: Ledger,
        task: Task,
        on_repair: Callable[[Repair], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._root = root
        self._ledger = ledger
        self._task = task
        self._on_repair = on_repair
        self._stopping = stopping
        self.report = Report()

    def heal_packages(self, lock: StoreLock, run: RunDirectory, subject: Subject) -> None:
        """Heal file lists, or the copies beside them."""
        healer = ListHealer(self._root, self._ledger, run, self._task.backups)
        recorded = self._ledger.recorded_lists()
        found = list(repair_lists.broken(self._root, recorded, self._task.packages))
        for one in found:
            if one.subject is subject and not self._should_end(lock):
                done = healer.heal(recorded.get(one.package_hash), one)
                if done is not None:
                    self._tell(done)

    def heal_objects(self, lock: StoreLock, run: RunDirectory) -> None:
        """Heal objects; what becomes of each is kept in the history."""
        healer = Healer(self._root, self._ledger, run, self._task.backups)
        patients = list(repair_objects.diagnose(self._root, self._ledger, self._task.digests))
        for patient in patients:
            if not self._should_end(lock):
                for done in healer.heal(patient):
                    self._tell(done)
                    _remember(self._ledger, done)

    def heal_legacy(self) -> None:
        """Make legacy directories anew that rotted; what somebody changed is left alone."""
        task = self._task
        rotten = _rotten(self._root, _suspects(self.report, task), task, self._stopping)
        if not rotten:
            return
        wanted = need(self._root, task.ways, list(rotten))
        check_space(self._root, wanted, bytes_min=task.bytes_min, inodes_min=task.inodes_min)

        def restored(event: Restored | Failure) -> None:
            if isinstance(event, Restored):
                self._tell(_of_legacy(event.package_hash, event.why, Outcome.HEALED))
            else:
                self._tell(_of_legacy(event.package_hash, event.why, Outcome.LOST))

        with RunDirectory(self._root, marks_errors=False) as run:
            done = restore(
                self._root,
                self._ledger,
                run,
                task.ways,
                rotten=rotten,
                lacking_too=False,
                on_event=restored,
                stopping=self._stopping,
            )
        self.report.stopped = done.stopped

    def _tell(self, one: Repair) -> None:
        self.report.repairs.append(one)
        self._on_repair(one)

    def _should_end(self, lock: StoreLock) -> bool:
        """Let others have their turn between two things; tell whether to end."""
        if lock.is_wanted():
            lock.give_way()
        self.report.stopped = self.report.stopped or self._stopping()
        return self.report.stopped


def _remember(ledger: Ledger, one: Repair) -> None:
    """Keep in the history of every package what became of an object."""
    aside = f"; {one.aside} is in quarantine" if one.aside else ""
    words = {
        Outcome.HEALED: f"object {one.name}: {one.why}; from {one.source}{aside}",
        Outcome.LOST: f"object {one.name}: {one.why}; no good copy was found{aside}",
    }.get(one.outcome, f"object {one.name}: {one.why}{aside}")
    event = "object_healed" if one.outcome is Outcome.HEALED else "object_damaged"
    names: list[str | None] = [*sorted({name for name, _ in one.concerns})]
    for name in names or [None]:
        ledger.remember(event, name, words)


# legacy directories


def _suspects(report: Report, task: Task) -> list[str]:
    """Return the packages whose legacy directory is damaged, perhaps."""
    shared = {name for one in report.repairs for name, _ in one.shared}
    return sorted(shared | set(task.legacy))


def _rotten(
    root: StoreRoot, suspects: list[str], task: Task, stopping: Callable[[], bool]
) -> dict[str, str]:
    """Return those that rotted, and what of each; the objects they are made of are good."""
    failures, stopped = check_legacy(
        root, suspects, jobs=task.jobs, on_result=lambda _: None, stopping=stopping
    )
    if stopped:
        return {}
    return rotten_among(root, failures, jobs=task.jobs, stopping=stopping)[0]


def _of_legacy(name: str, why: str, outcome: Outcome) -> Repair:
    where = "its objects" if outcome is Outcome.HEALED else ""
    return Repair(Subject.LEGACY, name, why, outcome, where, concerns=((name, b""),))
