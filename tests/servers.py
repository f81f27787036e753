"""A PostgreSQL server of the tests' own: an unprivileged user's, on a socket, not durable."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

SECONDS = 60
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/bin", "/usr/bin")
_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=60")


def programs() -> Path | None:
    """Where PostgreSQL's programs are; None where it is not installed."""
    for place in _PLACES:
        for found in sorted(Path("/").glob(f"{place[1:]}/pg_ctl"), reverse=True):
            if (found.parent / "initdb").exists():
                return found.parent
    return None


class Server:
    """One server; it can be killed and started again."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", folder / "data", "-U", "regrain", "-A", "trust", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self, name: str, *arguments: object) -> list[str]:
        drop = ["setpriv", f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}"]
        drop += ["--clear-groups"]
        prefix = drop if self._user is not None else []
        return [*prefix, str(self._programs / name), *map(str, arguments)]

    def _run(self, name: str, *arguments: object) -> None:
        subprocess.run(
            self._command(name, *arguments),
            check=True,
            timeout=SECONDS,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [part for option in _FAST for part in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(
                    "postgres", "-D", self.folder / "data", "-k", self.folder, "-h", "", *options
                ),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        due = time.monotonic() + SECONDS
        while True:
            try:
                psycopg.connect(**self.arguments("postgres")).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > due or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def arguments(self, database: str) -> dict[str, str]:
        """What the driver is told."""
        return {"host": str(self.folder), "user": "regrain", "dbname": database}

    def url(self, database: str) -> str:
        """What ``[store] database`` says."""
        return f"postgresql+psycopg://regrain:not-shown@/{database}?host={self.folder}"

    def run_sql(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside of a transaction."""
        with psycopg.connect(**self.arguments(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def rows(self, query: str, database: str) -> list[tuple[object, ...]]:
        """What a query gives."""
        with psycopg.connect(**self.arguments(database)) as connection:
            return connection.execute(query.encode()).fetchall()

    def kill(self) -> None:
        """Kill all of it at once, as a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(SECONDS)
            for left in ("data/postmaster.pid",):
                (self.folder / left).unlink(missing_ok=True)
            self._process = None

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(SECONDS)
            self._process = None


@contextmanager
def running() -> Iterator[Server]:
    """A server for the time of a test or a session."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path must be short
    server = Server(folder, found)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
