"""The steps of the drill, in the order of a migration; each asserts what it shows."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.drill.console import STORE, Console, DrillError
from bench.trees import Entry, snapshot, usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen

READERS = 2
PRESSURE_PERCENT_MAX = 40
WRITERS = 6
SLOWDOWN_MAX = 3.0
THRASHERS = 6
DISTURBED_FILE_BYTES = 1 << 30
SLOWLY = ("--max-read", "0.3", "--batch", "1")
"""So slowly the migration reads while it is to be held, paused and disturbed; a package a batch, so
that little is in hand when it is held."""
RUNS_MAX = 6
PRESSURE = Path("/proc/pressure/io")


@dataclass
class Scene:
    """A store in use.

    Attributes:
        console: Where commands are given.
        packages: The hashes of the legacy packages.
        failing: The one of them that is going to fail.
        before: Every entry of them, before regrain came.
        late: A package that is not there yet; the package manager installs it on the way.
        readers: Those who read.
        adder: Who adds.
    """

    console: Console
    packages: list[str]
    failing: str
    late: str
    before: dict[str, dict[bytes, Entry]] = field(default_factory=dict)
    readers: list[Popen[bytes]] = field(default_factory=list)
    adder: Popen[bytes] | None = None

    @property
    def store(self) -> Path:
        return self.console.directory / STORE

    @property
    def fifo(self) -> Path:
        """What makes it fail."""
        return self.store / self.failing / "queue"


def run_all(scene: Scene) -> None:
    """Go through all steps.

    Raises:
        DrillError: One of them did not end as it must.
    """
    with ExitStack() as stack:
        begin(scene)
        bring_in_users(scene, stack)
        hold_by_pressure_and_pause(scene)
        fire_the_trigger(scene)
        fail_and_retry(scene)
        cut_over(scene)
        dismiss_users(scene)


def begin(scene: Scene) -> None:
    """Look, and make a store of the directory."""
    console = scene.console
    console.heading("Plan, init")
    for name in [*scene.packages, scene.late]:
        place = scene.store if name != scene.late else console.directory
        scene.before[name] = snapshot(place / name)
    console.regrain("plan")
    console.regrain("init")


def bring_in_users(scene: Scene, stack: ExitStack) -> None:
    """Start who reads and adds all along."""
    console = scene.console
    console.heading("The store is in use")
    known = [
        (name, os.fsdecode(path), entry.content)
        for name in scene.packages
        for path, entry in scene.before[name].items()
        if len(entry.content) == 64 and entry.mode & 0o170000 == 0o100000
    ]
    digests = console.directory / "digests.json"
    digests.write_text(json.dumps(known))
    work = console.directory / "adds"
    work.mkdir()
    for seed in range(READERS):
        arguments = (STORE, digests.name, str(seed))
        scene.readers.append(stack.enter_context(console.acting("read", *arguments)))
    scene.adder = stack.enter_context(console.acting("add", STORE, work.name))
    console.say(
        f"{READERS} processes read random files from now on, up to 200 a second each, and compare "
        "every byte with what it was; one adds a package every two seconds and reads it back."
    )
    with _same_times(scene.fifo.parent):
        os.mkfifo(scene.fifo)
    console.say(f"Somebody left a FIFO in package {scene.failing[:12]}….")


def hold_by_pressure_and_pause(scene: Scene) -> None:
    """Let others write until the kernel's measure slows and holds the run; pause and resume it."""
    console = scene.console
    console.heading("Slowed and held by I/O pressure")
    console.settings["REGRAIN_MIGRATION__IO_PRESSURE_MAX"] = str(PRESSURE_PERCENT_MAX)
    console.until(lambda: _pressure() < PRESSURE_PERCENT_MAX / 2, "this machine has little to do")
    with console.watched("migrate", *SLOWLY) as run:
        console.until(lambda: console.status()["migrated_packages"] > 0, "it works")
        console.say(
            f"It was begun with little I/O pressure ({_pressure():.0f} %), and has migrated "
            f"{console.status()['migrated_packages']} packages. {WRITERS} processes begin to "
            "write and flush."
        )
        _hold_by_pressure(console)
        _pause_and_resume(console)
        _stop(console, run)
    console.check("SIGTERM ends it with 143", holds=run.returncode == 143)
    _remove_load(console)
    del console.settings["REGRAIN_MIGRATION__IO_PRESSURE_MAX"]


def _hold_by_pressure(console: Console) -> None:
    with ExitStack() as disturbance:
        for number in range(WRITERS):
            disturbance.enter_context(console.acting("write", f"load-{number}"))
        console.until(lambda: "I/O pressure" in _reason(console), "slowed by I/O pressure")
        told = console.snapshot()
        console.check(
            "workers are shed before it is held",
            holds=not told["held"],
            found=told["throttle_reason"],
        )
        console.until(lambda: bool(console.snapshot().get("held")), "held by I/O pressure")
        console.until(lambda: not console.status()["in_progress_packages"], "nothing is in hand")
        first = _bytes_done(console)
        console.regrain("status")
        time.sleep(3)
        console.check(
            "nothing is begun while it is held",
            holds="I/O pressure" in _reason(console) and _bytes_done(console) == first,
            found=f"{first:,} bytes, three seconds later the same",
        )
    console.say("The writers end.")
    seconds = console.until(lambda: "I/O pressure" not in _reason(console), "goes on by itself")
    console.check("it goes on by itself", holds=True, found=f"after {seconds:.0f} s")


def _pause_and_resume(console: Console) -> None:
    console.heading("Paused, resumed")
    console.until(lambda: console.status()["in_progress_packages"] > 0, "it works")
    console.regrain("pause")
    seconds = console.until(
        lambda: console.status()["in_progress_packages"] == 0, "packages in hand are put back"
    )
    first = console.status()
    console.regrain("status")
    time.sleep(3)
    second = console.status()
    still = all(first[key] == second[key] for key in ("migrated_packages", "pending_packages"))
    console.check("it holds", holds=second["paused"] and second["throttled"] and still)
    console.check(
        "packages in hand were finished or put back", holds=True, found=f"{seconds:.1f} s"
    )
    console.check(
        "no time is foreseen while it is paused",
        holds=second["estimated_time_remaining_seconds"] is None,
    )
    console.regrain("resume")
    console.until(lambda: console.status()["in_progress_packages"] > 0, "it goes on")
    console.check("it goes on", holds=not console.status()["paused"])


def _stop(console: Console, run: Popen[bytes]) -> None:
    console.heading("Stopped")
    console.say("SIGTERM to the process that `status` names:")
    run.send_signal(signal.SIGTERM)
    console.until(lambda: run.poll() is not None, "it ends")


def fire_the_trigger(scene: Scene) -> None:
    """Disturb readers until the run ends for it; then take the disturbance away."""
    console = scene.console
    console.heading("A disturbance that fires the trigger")
    console.settings["REGRAIN_MIGRATION__LATENCY_SLOWDOWN_MAX"] = str(SLOWDOWN_MAX)
    target = console.directory / "load-file"
    _fill(target)
    with console.watched("migrate", *SLOWLY) as run, ExitStack() as load:
        console.until(
            lambda: console.status()["foreground_seconds"] is not None, "readers are measured"
        )
        console.regrain("status")
        for number in range(THRASHERS):
            arguments = (target.name, str(DISTURBED_FILE_BYTES), str(number))
            load.enter_context(console.acting("thrash", *arguments))
            load.enter_context(console.acting("write", f"load-{number}"))
        console.say(
            f"{THRASHERS} processes read past the page cache from now on, as many write and flush: "
            "small reads take longer, whatever the migration does."
        )
        console.until(
            lambda: "a small read takes" in _reason(console) or run.poll() is not None,
            "held for the sake of readers",
        )
        if run.poll() is None:
            console.regrain("status")
        seconds = console.until(lambda: run.poll() is not None, "the trigger fires")
        console.say(f"{seconds:.0f} s later the run has ended; the disturbance ends, too.")
    console.check("the trigger ended it with 5", holds=run.returncode == 5, found=run.returncode)
    status = console.status()
    console.check(
        "`status` says which trigger",
        holds="slow" in str(status["last_trigger"]).lower(),
        found=status["last_trigger"],
    )
    console.check("nothing is left in hand", holds=status["in_progress_packages"] == 0)
    console.check("next is", holds=status["next_command"] == "regrain migrate", found="`migrate`")
    _remove_load(console)


def fail_and_retry(scene: Scene) -> None:
    """Finish, with one package that fails; mend it and try it again."""
    console = scene.console
    console.heading("A package appears, one fails and is tried again")
    (console.directory / scene.late).rename(scene.store / scene.late)
    console.say(f"The package manager installs {scene.late[:12]}… meanwhile, in the legacy layout.")
    time.sleep(11)  # the default of `settle` and a second
    for _ in range(RUNS_MAX):
        with console.watched("migrate") as run:
            pass
        if run.returncode != 5:  # readers may be slow again: others use this machine
            break
    status = console.status()
    console.check("`migrate` ended with 3", holds=run.returncode == 3, found=run.returncode)
    console.check("one package failed", holds=status["failed_packages"] == 1)
    console.check("none is pending", holds=status["pending_packages"] == 0)
    del console.settings["REGRAIN_MIGRATION__LATENCY_SLOWDOWN_MAX"]
    console.regrain("status", "--failed")
    console.regrain("why", scene.failing[:12])
    with _same_times(scene.fifo.parent):
        scene.fifo.unlink()
    console.say("The FIFO is removed.")
    console.regrain("migrate", "--retry-failed")
    status = console.status()
    console.check("no package is failed", holds=status["failed_packages"] == 0)


def cut_over(scene: Scene) -> None:
    """Prove, back up, switch."""
    console = scene.console
    console.heading("Verify, backup, cutover")
    console.regrain("verify", "--level", "deep")
    console.regrain("cutover", code=5)
    console.say("The gate is closed: there is no backup.")
    console.regrain("backup", "create", "backup")
    console.say(
        "Packages are added all the time, so that no backup covers the newest ones for long; the "
        "operator gives his word for this one."
    )
    console.regrain("backup", "mark", "made with backup create; what was added since can be again")
    console.regrain("cutover", "--wait", "120")
    console.regrain("status")
    console.check("reads go to the file level", holds=console.status()["phase"] == "file_level")


def dismiss_users(scene: Scene) -> None:
    """Let them work a little longer; then ask what they saw."""
    console = scene.console
    console.heading("What those who used it saw")
    time.sleep(3)
    console.regrain("status", "--check")
    layouts: dict[str, int] = {}
    for reader in scene.readers:
        told = console.ended(reader)
        console.check(
            "a reader saw every byte right",
            holds=not told["wrong"],
            found=(
                f"{told['reads']:,} reads, the slowest {told['slowest'] * 1e3:.0f} ms"
                if not told["wrong"]
                else told["wrong"][:3]
            ),
        )
        for layout, count in told["layouts"].items():
            layouts[layout] = layouts.get(layout, 0) + count
    console.check(
        "they read from both layouts",
        holds={"legacy", "file_level"} <= layouts.keys(),
        found=", ".join(f"{count:,} {layout}" for layout, count in sorted(layouts.items())),
    )
    if scene.adder is None:
        raise DrillError("nobody added anything")
    told = console.ended(scene.adder)
    console.check(
        "every package that was added is there",
        holds=bool(told["added"]) and not told["wrong"],
        found=told["wrong"][:3] or f"{len(told['added'])} packages",
    )
    listed = console.quietly("list")
    lost = [name for name in [*told["added"], *scene.packages, scene.late] if name not in listed]
    console.check("`list` has all packages", holds=not lost, found=lost[:3] or "")
    changed = [
        name
        for name in [*scene.packages, scene.late]
        if snapshot(scene.store / name) != scene.before[name]
    ]
    entries = sum(map(len, scene.before.values()))
    console.check(
        "the legacy packages are as they were",
        holds=not changed,
        found=changed[:3] or f"{entries:,} entries, bytes and metadata",
    )


def _pressure() -> float:
    found = re.search(r"some avg10=(\S+)", PRESSURE.read_text())
    return float(found[1]) if found else 0.0


def _reason(console: Console) -> str:
    return str(console.snapshot().get("throttle_reason") or "")


def _bytes_done(console: Console) -> int:
    return int(console.status()["bytes_done"])


def _fill(path: Path) -> None:
    """Make a file of real bytes: holes would be read without the disk."""
    piece = os.urandom(1 << 20)
    with path.open("wb") as stream:
        for _ in range(DISTURBED_FILE_BYTES >> 20):
            stream.write(piece)
        os.fsync(stream.fileno())


def _remove_load(console: Console) -> None:
    for path in console.directory.glob("load-*"):
        path.unlink()


@contextmanager
def _same_times(directory: Path) -> Iterator[None]:
    """Let what is done in a directory leave its times and mode as they were."""
    status = directory.stat()
    yield
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))


def set_the_scene(console: Console, names: list[str]) -> Scene:
    """Choose which package fails, and which one is moved out of the store, to come back later."""
    store = console.directory / STORE
    by_size = sorted(names, key=lambda name: usage(store / name).allocated)
    late = by_size.pop(len(by_size) // 2)
    (store / late).rename(console.directory / late)
    return Scene(console, sorted(by_size), by_size[0], late)
