"""What the system refuses: rights, space, streams. Nothing is lost, one sentence says it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests import mounts
from tests.conftest import remove
from tests.sampling import each_with_one, few_of
from tests.system.calling import call, judge, state
from tests.verbs import PACKAGE, SHORT, VERBS, Model, another_user, make_model

ALL = list(VERBS)
CHANGING = {verb for verb, row in VERBS.items() if row.changes} | {"rehearse"}
"""Those that write; a rehearsal does beside all that it leaves alone."""

FLOOR = {"REGRAIN_MIGRATION__FREE_BYTES_MIN": "0", "REGRAIN_MIGRATION__FREE_INODES_MIN": "0"}


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """Where other users may come, too."""
    place = Path(tempfile.mkdtemp(prefix="regrain-refusals-"))
    place.chmod(0o755)
    yield make_model(place)
    remove(place)


@pytest.fixture
def copied(model: Model, store_path: Path) -> Model:
    return model.copied(store_path)


# rights


@pytest.fixture(scope="module")
def nobody() -> Mapping[str, str]:
    found = another_user() if os.geteuid() == 0 else None
    if found is None:
        pytest.skip("no other user can run regrain from here")
    return found


@pytest.mark.root
@pytest.mark.parametrize("mode", [pytest.param(0o700, marks=pytest.mark.slow), 0o755], ids=oct)
def test_another_user(model: Model, nobody: Mapping[str, str], mode: int) -> None:
    model.path.chmod(mode)
    out = Path("/tmp") / f"regrain-refused-{os.getpid()}"
    before = state(model.path)
    try:
        for verb in ALL:
            for more in [[], ["--json"]] if VERBS[verb].json else [[]]:
                said = call(model.path, [*model.words(verb, out), *more], nobody=nobody)
                if mode == 0o700:
                    judge(said, 1, str(model.path), "Permission denied")
                elif verb in CHANGING:
                    judge(said, 1, str(model.path), "owner" if "owner" in said.stderr else "user 0")
                elif verb == "plan":
                    assert (said.code, said.stderr) == (5, ""), said
                elif verb == "checkout":  # which may not give files away
                    judge(said, 1, "needs root")
                elif verb != "doctor":
                    judge(said, 0)
                remove(out)
            assert state(model.path) == before, verb
    finally:
        model.path.chmod(0o755)


@pytest.mark.root
def test_a_directory_that_may_not_be_written_to(nobody: Mapping[str, str]) -> None:
    place = Path(tempfile.mkdtemp(prefix="regrain-refusals-"))
    os.chown(place, 65534, 65534)
    place.chmod(0o555)
    try:
        said = call(place, ["init"], nobody=nobody, streams="< /dev/null")
        judge(said, 1, str(place), "Permission denied")
        assert list(place.iterdir()) == []
    finally:
        remove(place)


@pytest.mark.root
def test_a_configuration_that_may_not_be_read(
    model: Model, nobody: Mapping[str, str], tmp_path: Path
) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml", dir="/tmp") as config:
        words = ["--config", config.name]
        judge(call(model.path, ["list"], options=words, nobody=nobody), 2, config.name)


@pytest.mark.root
def test_a_read_only_mount(model: Model, workplace: Path) -> None:
    with mounts.mounted("ext4", workplace) as point:
        there = model.copied(point / "store")
        subprocess.run(["mount", "-o", "remount,ro", point], check=True)
        before = state(there.path)
        for verb in ALL:
            said = call(there.path, there.words(verb, workplace / f"out-{verb}"), env=FLOOR)
            if verb == "cleanup":  # not the phase for it
                judge(said, 5, "after cutover")
            elif verb in CHANGING:
                judge(said, 1, "Read-only file system")
            elif verb == "doctor":
                assert (said.code, said.stderr) in {(0, ""), (1, "")}, said
            elif verb != "checkout":
                judge(said, 0)
        said = call(there.path, ["checkout", PACKAGE, str(workplace / "out")])
        judge(said, 0)
        said = call(there.path, ["checkout", PACKAGE, str(point / "out")])
        assert said.code in {1, 2}, said
        judge(said, said.code, "Read-only file system")
        judge(call(there.path, ["doctor", "--rebuild-ledger"]), 1, "Read-only file system")
        assert state(there.path) == before


# space


@pytest.mark.root
def test_a_full_disk(model: Model, workplace: Path) -> None:
    with mounts.mounted("ext4", workplace, "-m", "0") as point:
        there = model.copied(point / "store")
        legacy = {path.name: state(path) for path in there.path.iterdir() if len(path.name) > 31}
        with (point / "ballast").open("wb") as ballast:
            fill(ballast.fileno())
        for verb in ("migrate", "init", "add", "exclude", "checkout", "remove", "gc"):
            said = call(there.path, there.words(verb, point / "out"), env=FLOOR)
            if said.code:
                judge(said, 1, "no space left" if "no space" in said.stderr else "No space left")
            else:  # what needs no block is done, and not refused
                assert verb in {"init", "remove", "exclude", "gc"}, said
            kept = {name: tree for name, tree in legacy.items() if name != PACKAGE}
            assert {name: state(there.path / name) for name in kept} == kept
            assert not (point / "out").exists()
        judge(call(there.path, ["doctor", "--rebuild-ledger"], env=FLOOR), 1)
        for name in (SHORT, "12" * 32):
            judge(call(there.path, ["cat", name, "manifest.toml"]), 0)
        (point / "ballast").unlink()
        for words in (["migrate"], ["verify", "--level", "deep"]):
            judge(call(there.path, words, env=FLOOR), 0)


def fill(fd: int) -> None:
    """Take every block there is."""
    for size in (1 << 20, 1 << 12, 1):
        try:
            while True:
                os.write(fd, b"\1" * size)
        except OSError:
            os.fsync(fd)


# streams


@pytest.mark.parametrize("verb", ALL)
def test_output_that_takes_nothing(copied: Model, workplace: Path, verb: str) -> None:
    words = copied.words(verb, workplace / "no", dry=True)
    copied.ready(verb)
    before = state(copied.path)
    full = call(copied.path, words, stdout="/dev/full")
    judge(full, 1, "standard output", "No space left on device")
    assert state(copied.path) == before


@pytest.mark.parametrize("verb", few_of(ALL, 6))
def test_closed_streams(copied: Model, workplace: Path, verb: str) -> None:
    """Standard input is not wanted; output is; nobody may be told where errors go nowhere."""
    copied.ready(verb)
    words = copied.words(verb, workplace / "out")
    before = state(copied.path)
    said = call(copied.path, words, streams=">&-")
    judge(said, 1, "standard output is closed")
    assert not (workplace / "out").exists()
    assert state(copied.path) == before
    full = call(copied.path, copied.words(verb, workplace / "no", dry=True), streams="> /dev/full")
    judge(full, 1, "standard output", "No space left on device")
    quiet = call(copied.path, ["--nonsense"], streams="2>&-")
    assert (quiet.code, quiet.stderr) == (2, "")
    alone = call(copied.path, words, streams="<&- 2>&-")
    assert (alone.code, alone.stderr) == (0, ""), alone
    assert alone.stdout


PRINTING = ("plan", "status", "list", "show", "files", "cat", "doctor", "verify")


@pytest.mark.parametrize(("verb", "form"), each_with_one(PRINTING, ["text", "json"]))
def test_a_pipe_that_is_closed_early(model: Model, verb: str, form: str) -> None:
    """Whoever reads leaves before anything is written: who else reads stderr is told."""
    words = model.words(verb, model.path.parent / "out")
    words += ["--json"] if form == "json" and VERBS[verb].json else []
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "regrain", "--store", model.path, *words],
        env={**os.environ, "REGRAIN_LOG_FORMAT": "text"},
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert said.startswith("regrain: cannot write to standard output: Broken pipe"), said
    assert said.count("\n") == 1, said


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["text", "json"])
def test_a_migration_whose_reader_leaves_can_go_on(copied: Model, json: list[str]) -> None:
    said = call(copied.path, ["migrate", *json], streams="| true")
    assert said.code in {0, 1}, said
    assert "Traceback" not in said.stderr, said
    assert "cannot write to the store" not in said.stderr, said
    for words in (["migrate"], ["verify", "--level", "deep"]):
        judge(call(copied.path, words), 0)
    said = call(copied.path, ["-v", "migrate"], streams="2>&1 | head -n 1")
    assert said.code in {0, 1}, said
