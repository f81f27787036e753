"""What `report` tells: all that is known of a store's migration, gathered at one time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from regrain import __version__
from regrain.app import standing
from regrain.app.kinds import Kinds, survey_kinds
from regrain.app.space import is_quick, measure
from regrain.errors import shown
from regrain.ledger import open_ledger
from regrain.ledger.recounting import Tale, Told, recount
from regrain.migrate.chronicle import Chronicle, Run, read_chronicle
from regrain.migrate.probe import Probe
from regrain.model import clock
from regrain.model.phase import Phase

if TYPE_CHECKING:
    from regrain.app.health import Health
    from regrain.app.migration import Migration
    from regrain.app.space import Space
    from regrain.app.standing import State
    from regrain.settings import Settings
    from regrain.store.root import StoreRoot

ROWS_MAX = 25
STEPS_MAX = 200


@dataclass(frozen=True, slots=True)
class Report:
    """All of it.

    Attributes:
        made_at: When, in Unix seconds.
        version: Of regrain.
        store: Where it is.
        phase: Its.
        state: What ``status`` tells, as values.
        figures: The same, as ``status --json`` has it.
        health: The store's.
        tale: What the ledger tells.
        chronicle: What the logs tell.
        kinds: Savings by kind of file.
        read_seconds: What a small read takes now; None where there is nothing to read.
        space: What the store takes on disk, measured; None of a very large one.
    """

    made_at: int
    version: str
    store: str
    phase: Phase
    state: State
    figures: dict[str, object]
    health: Health
    tale: Tale
    chronicle: Chronicle
    kinds: Kinds
    read_seconds: float | None
    space: Space | None = None

    @property
    def waits(self) -> Waits:
        """How long readers waited: before, during, and now."""
        measured = [s for s in self.chronicle.samples if s.read_seconds is not None]
        beside = sorted(s.read_seconds for s in measured if s.read_seconds is not None)
        baselines = [s.baseline_seconds for s in measured if s.baseline_seconds is not None]
        return Waits(
            before=baselines[0] if baselines else None,
            during=beside[len(beside) // 2] if beside else None,
            worst=beside[-1] if beside else None,
            windows=len(beside),
            now=self.read_seconds,
        )

    def document(self) -> dict[str, object]:
        """Return all of it for a program."""
        tale, chronicle = self.tale, self.chronicle
        return {
            "made_at": self.made_at,
            "version": self.version,
            "store": self.store,
            "phase": self.phase.value,
            "status": self.figures,
            "space": None if self.space is None else self.space.document(),
            "steps": [step._asdict() for step in tale.steps],
            "steps_left_out": tale.steps_before,
            "events": tale.events,
            "completed_over_time": [point._asdict() for point in tale.curve],
            "most_saving_packages": [_told(one) for one in tale.saving],
            "most_saving_names": [family._asdict() for family in tale.families],
            "slowest_packages": [_told(one) for one in tale.slowest],
            "failures": [_told(one) for one in tale.failed],
            "kinds_of_files": asdict(self.kinds),
            "checks": {
                "completed_packages": tale.completed,
                "verified_packages": tale.verified,
                "last_verified_at": tale.verified_at,
            },
            "runs": [_run(run) for run in chronicle.runs],
            "samples": [sample._asdict() for sample in chronicle.samples],
            "remarks": [remark._asdict() for remark in chronicle.remarks],
            "throttled_seconds": chronicle.throttled,
            "log_lines_unreadable": chronicle.unreadable,
            "log_bytes_left_out": chronicle.left_out,
            "foreground": asdict(self.waits),
        }


@dataclass(frozen=True, slots=True)
class Waits:
    """What a small read of a reader takes, in seconds; None where that was not measured.

    Attributes:
        before: Before the first run of which samples are kept began to work, the median.
        during: Beside runs, the median of the samples.
        worst: The slowest of these.
        windows: How many samples there are.
        now: When the report was made, the median.
    """

    before: float | None
    during: float | None
    worst: float | None
    windows: int
    now: float | None


def gather(root: StoreRoot, settings: Settings, migration: Migration) -> Report:
    """Gather it; nothing is written.

    Raises:
        CorruptionError: The ledger is missing or cannot be used.
    """
    state = migration.state()
    ledger = open_ledger(root.path, read_only=True)
    try:
        tale = recount(ledger, rows_max=ROWS_MAX, steps_max=STEPS_MAX)
        kinds = survey_kinds(root, ledger)
    finally:
        ledger.close()
    found = Probe(root).found
    return Report(
        made_at=clock.now(),
        version=__version__,
        store=root.path,
        phase=state.phase,
        state=state,
        figures=standing.figures(root, state, settings),
        health=standing.health(root, state, settings),
        tale=tale,
        chronicle=read_chronicle(root),
        kinds=kinds,
        read_seconds=None if found is None else found.baseline_seconds,
        space=measure(root) if is_quick(state.totals) else None,
    )


def _told(one: Told) -> dict[str, object]:
    path = one.error_path
    return {**one._asdict(), "error_path": None if path is None else shown(path)}


def _run(run: Run) -> dict[str, object]:
    """Return the fields of a run; ``asdict`` does not copy a Counter as what it is."""
    return {
        "pid": run.pid,
        "began_at": run.began_at,
        "ended_at": run.ended_at,
        "events": dict(run.events),
        "throttled_seconds": run.throttled_seconds,
    }
