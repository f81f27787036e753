"""Calls the command with any streams, as any user, and judges how it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command import FOR_TESTS
from tests.compare import Snapshot, snapshot
from tests.verbs import NOBODY
from tests.zygote import zygote

SECONDS_MAX = 60


@dataclass(frozen=True, slots=True)
class Said:
    """How a call ended."""

    words: list[str | bytes]
    code: int
    stdout: bytes
    stderr: str

    def __str__(self) -> str:
        """Show everything: this is what a failing assertion prints."""
        out = self.stdout.decode(errors="replace")
        return f"{self.words}: exit {self.code}\n{out}\n--\n{self.stderr}"


def call(
    store: str | bytes | Path | None,
    words: Sequence[str | bytes],
    *,
    options: Sequence[str | bytes] = (),
    env: Mapping[str, str] | None = None,
    nobody: Mapping[str, str] | None = None,
    streams: str = "",
    stdout: str | None = None,
) -> Said:
    """Run the command.

    Args:
        store: For ``--store``; None names none.
        words: The verb and what follows.
        options: What stands before the verb.
        env: More environment.
        nobody: Run as another user, with this environment and ``python``.
        streams: A redirection of the shell, such as ``<&-`` or ``| head -n 1``; with one the
            command is an interpreter of its own.
        stdout: Where standard output goes, instead of into what is returned.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("REGRAIN_")}
    python = sys.executable
    user: dict[str, Any] = {}
    if nobody is not None:
        clean, python = dict(nobody), nobody["python"]
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    place = [] if store is None else ["--store", store]
    arguments = [*place, *options, *words]
    environment = {**clean, **FOR_TESTS, **(env or {})}
    if not streams:
        theirs = zygote() if nobody is None else zygote(python, nobody["PYTHONPATH"], NOBODY)
        ended = theirs.run(arguments, environment, stdout=stdout, seconds_max=SECONDS_MAX)
        said = ended.stderr.decode("utf-8", "backslashreplace")
        return Said(list(words), ended.code, ended.stdout, said)
    command: list[Any] = [python, "-m", "regrain", *arguments]
    if streams:
        command = ["bash", "-c", f'"$@" {streams}; exit "${{PIPESTATUS[0]}}"', "bash", *command]
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        timeout=SECONDS_MAX,
        check=False,
        **user,
    )
    stderr = done.stderr.decode("utf-8", "backslashreplace")
    return Said([*options, *words], done.returncode, done.stdout, stderr)


def judge(said: Said, code: int, *named: str) -> None:
    """It ended with ``code``; a refusal is one sentence, and with --json one document, too."""
    assert said.code == code, said
    assert "Traceback" not in said.stderr, said
    assert "unforeseen" not in said.stderr, said
    if code == 0:
        return
    lines = said.stderr.splitlines()
    assert len(lines) == 1, said
    assert lines[0].startswith("regrain: "), said
    assert lines[0].rstrip().endswith((".", "'")), said  # an advice is a sentence of its own
    assert all(name in lines[0] for name in named), (named, said)
    if "--json" in said.words:
        (document,) = [json.loads(line) for line in said.stdout.splitlines()]
        assert document["schema"] == 1, said
        assert document["message_type"] == "exit_error", said
        assert document["exit_code"] == code, said
        assert f"regrain: {document['message']}" == lines[0], said
        assert document["advice"], said
    else:
        assert said.stdout == b"", said


def state(store: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a directory, with inode, size and times; change times, too.

    Left out are the times of what stays what it is: of the top directory, where SQLite makes
    and removes the files it keeps beside a ledger, even to read it, since they hold its locks;
    of the locks, into which their holder writes its name; of ``temp``, where a run has its
    directory as long as it lives.
    """
    found: Snapshot = snapshot(store)
    facts = {}
    for path, entry in found.items():
        status = os.lstat(os.path.join(os.fsencode(store), path))
        moves = path in (b"", b"temp") or path.endswith(b".lock")
        when = () if moves else (status.st_mtime_ns, status.st_ctime_ns)
        facts[path] = (status.st_ino, status.st_mode, status.st_size, entry.digest, *when)
    return facts
