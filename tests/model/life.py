"""A random life: a store, the plain model of it, and those who work with both."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from pathlib import Path

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from regrain.app.initialising import initialise
from regrain.app.store import Package, PackageStore
from tests.compare import Snapshot, snapshot
from tests.conftest import remove
from tests.faults.crash_driver import Crasher, Moment
from tests.faults.faulty import SYNCS, WRITES
from tests.faults.inline import Way
from tests.model import judge, steps
from tests.model.commands import (
    HURTS,
    NAMES,
    Chance,
    Choice,
    Command,
    about,
    caring,
    chances,
    keeping,
    mending,
    names,
    numbers,
    smoothing,
)
from tests.model.plain import Known, Plain, same
from tests.model.trees import CHANGES, Sources, change
from tests.stores import statuses

EVERYWHERE = " ".join(
    [
        *(f"regrain.disk:{name}" for name in (*WRITES, *SYNCS, "remove_tree")),
        "regrain.ledger.queries:Ledger._transaction",
    ]
)
"""Where a command may die: at every change of the disk, and before every transaction."""

SMOOTHING_MAX = 24
actors = st.sampled_from(("one", "two", "fresh"))


class Life(RuleBasedStateMachine):
    """A store, the model, and those who work with them.

    Attributes:
        place: Where stores go.
        sources: The trees there are.
        crash: Who lets commands die.
        counted: How often each command ended how, in which phase.
    """

    place: Path
    sources: Sources
    crash: Crasher
    counted: Counter[tuple[str, str, str]]
    _numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        number = next(self._numbers)
        self.path = self.place / f"store{number}"
        self.scratch = self.place / f"scratch{number}"
        self.scratch.mkdir()
        self.path.mkdir()
        self.model = Plain()
        self.handles: dict[str, PackageStore] = {}
        self.held: dict[str, tuple[Package, list[Snapshot | None]]] = {}
        self.salt = 0

    def teardown(self) -> None:
        """Leave nothing."""
        remove(self.path)
        remove(self.scratch)

    @initialize(chosen=st.dictionaries(names, numbers, max_size=5))
    def begin(self, chosen: dict[str, int]) -> None:
        """Make a store of a legacy directory, and open it for good."""
        for name, number in chosen.items():
            self._appear(name, number)
        initialise(os.fspath(self.path))
        self.model.reconcile(full=False)
        for name in ("one", "two", "reader"):
            self.handles[name] = PackageStore.open(self.path, steps.SETTINGS)

    # others

    def _known(self, name: str) -> Known:
        return self.model.known.get(name, Known())

    def _appear(self, name: str, number: int) -> None:
        aside = self.scratch / "appearing"
        self.sources.put(number, aside)
        aside.rename(self.path / name)
        self.model.appear(name, self.sources[number].tree)

    @rule(name=names, number=numbers, what=st.sampled_from(("come", "go", "right", *CHANGES)))
    def others(self, name: str, number: int, what: str) -> None:
        """A package manager that knows nothing of regrain does something to a directory."""
        known = self._known(name)
        if what == "come" or known.legacy is None:
            if known.legacy is None:
                self._appear(name, number)
        elif what == "go":
            self._take_away(name)
            self.model.vanish(name)
        elif what == "right":
            self._put_right(name, known)
        else:
            self.salt += 1
            change(self.path / name, what, self.salt)
            known.legacy = snapshot(self.path / name)

    def _take_away(self, name: str) -> None:
        (self.path / name).rename(self.scratch / "taken")
        remove(self.scratch / "taken")

    def _put_right(self, name: str, known: Known) -> None:
        if known.published is not None and self.model.phase != "rolled_back":
            self.handles["reader"].get_package(name).checkout(self.scratch / "right")
            self._take_away(name)
            (self.scratch / "right").rename(self.path / name)
            known.legacy = known.published

    # commands

    def handle(self, who: str) -> PackageStore:
        """Return a store that was opened long ago, or just now."""
        if who == "fresh":
            return PackageStore.open(self.path, steps.SETTINGS)
        return self.handles[who]

    def give(self, who: str, command: Command) -> None:
        """Give a command; it must end as the model says."""
        note(f"{command} in {self.model.phase}")
        phase = self.model.phase
        wanted = command.model(self.model)
        code = getattr(steps, command.step)(self.handle(who), **command.options)
        self.counted[command.step, phase, str(code)] += 1
        assert code == wanted, f"{command}: exit {code}, not {wanted}"

    @rule(who=actors, chosen=keeping)
    def keep(self, who: str, chosen: Choice) -> None:
        """Packages come and go."""
        self.give(who, chosen(self.sources))

    def _set_aside(self) -> list[str]:
        return sorted(name for name, one in self.model.known.items() if one.excluded)

    @precondition(lambda self: bool(self._set_aside()))
    @rule(who=actors, number=numbers)
    def include(self, who: str, number: int) -> None:
        """Somebody takes back one of those that are set aside: chance alone hits them seldom."""
        names = self._set_aside()
        self.give(who, about("include", names[number % len(names)]))

    @rule(who=actors, command=caring)
    def care(self, who: str, command: Command) -> None:
        """The store is looked after."""
        self.give(who, command)

    @rule(who=actors, what=st.sampled_from(HURTS), number=st.integers(0, 99))
    def mend(self, who: str, what: str, number: int) -> None:
        """A disk damages something, and that is repaired."""
        self.give(who, mending(what, number))

    @rule(who=actors, chance=chances)
    def lead(self, who: str, chance: Chance) -> None:
        """A step from phase to phase."""
        self.give(who, chance.command(self.model.phase))

    @rule(who=actors, limit=st.integers(0, 2))
    def migrate_some(self, who: str, limit: int) -> None:
        """Migrate only so many; which ones is not the contract's."""
        if self.model.begin():
            assert steps.migrate(self.handle(who), limit=limit) == 5
            return
        self.model.reconcile(full=False)
        waiting = self.model.waiting()
        code = steps.migrate(self.handle(who), limit=limit)
        now = statuses(self.path)
        taken = {name for name in waiting if now.get(name) != "pending"}
        assert len(taken) == min(limit, len(waiting))
        assert code == self.model.migrate(taken)

    @rule(who=actors, goal=st.sampled_from(("file_level", "clean", "rolled_back")))
    def smooth(self, who: str, goal: str) -> None:
        """An operator puts right whatever is in the way of a phase; it always comes to it."""
        for _ in range(SMOOTHING_MAX):
            command = smoothing(self.model, goal)
            if command is None:
                return
            self.give(who, command)
            self.all_is_well()
        raise AssertionError(f"no way to {goal}: {self.model}")

    # crashes

    @rule(
        who=actors,
        number=st.one_of(st.integers(1, 9), st.integers(1, 30), st.integers(1, 90)),
        when=st.sampled_from(("before", "after")),
        resumed=st.booleans(),
        chosen=st.one_of(keeping, caring, *[chances] * 4),
    )
    def die(
        self, who: str, number: int, when: str, resumed: bool, chosen: Choice | Command | Chance
    ) -> None:
        """A command is killed in the middle; the same, or another, finishes what it began."""
        if isinstance(chosen, Chance):
            command = chosen.command(self.model.phase)
        else:
            command = chosen if isinstance(chosen, Command) else chosen(self.sources)
        note(f"{command} dies")
        before, after = self.model, self.model.copy()
        wanted = command.model(after)
        ended = self.crash(
            f"tests.model.steps:{command.step}",
            self.path,
            Way(),
            Moment(EVERYWHERE, when, number),
            **command.options,
        )
        self.counted[command.step, before.phase, "died" if ended.signal else "lived"] += 1
        self.model = after
        if not ended.signal:
            assert ended.code == 0, command
            return
        seen, then = before.visible(), after.visible()
        either = {name: [seen.get(name), then.get(name)] for name in NAMES}
        said = judge.reading_problems(self.handles["reader"], either)
        assert not said, "\n".join([f"{command} died:", *said])
        is_bounded = command.options.get("limit") is not None  # then it takes the next ones
        if (resumed and not is_bounded) or command.step == "rebuild":
            code = getattr(steps, command.step)(self.handle(who), **command.options)
            may_be = {wanted, 0, 1} if command.step in {"add", "remove"} else {wanted}
            assert code in may_be, f"{command} resumed: exit {code}, not {wanted}"
            before = after
        assert steps.collect(self.handle(who)) == 0
        self.model, said = judge.settled(self.path, before, after)
        assert not said, "\n".join([f"{command} died:", *said])

    # what must hold

    @rule(name=names)
    def hold(self, name: str) -> None:
        """Somebody keeps a package open."""
        tree = self.model.seen(name)
        if tree is not None:
            self.held[name] = (self.handles["reader"].get_package(name), [tree])

    @invariant()
    def all_is_well(self) -> None:
        """Every package is read as it is, lies where it should, and is recorded so."""
        if "reader" not in self.handles:
            return
        reader, seen = self.handles["reader"], self.model.visible()
        said = judge.reading_problems(reader, {name: [seen.get(name)] for name in NAMES})
        for name, tree in seen.items():
            out = self.scratch / "out"
            said += judge.checkout_problems(reader.get_package(name), tree, out)
        for name, (package, trees) in self.held.items():
            # Whoever opened a legacy directory goes on seeing what others do to that.
            now, legacy = seen.get(name), self._known(name).legacy
            for one in (now, now if legacy is None else legacy):
                if not any(same(one, other) for other in trees):
                    trees.append(one)
            said += judge.held_problems(package, trees)
        said += judge.disk_problems(self.path, self.model)
        said += judge.recorded_problems(self.path, self.model)
        assert not said, "\n".join(said)
