"""A PostgreSQL server of the tests' own: an unprivileged user's, on a socket, not durable."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from regrain.ledger import open_ledger
from regrain.model import whereabouts

SECONDS = 60
DATABASE = "regrain"
_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/bin", "/usr/bin")
_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=60")


running_now: list[Server] = []
"""The servers of this process, the last one started at the end."""


def schema_of(store: Path) -> str:
    """The schema a store's ledger is in."""
    mark = tomllib.loads((store / "migration" / "ledger.toml").read_text())
    return str(mark["schema"])


def ask(store: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """What a query, written for SQLite, gives in a store's ledger, from the server that has it."""
    query = re.sub(r"lower\(hex\((\w+)\)\)", r"encode(\1, 'hex')", query).replace("?", "%s")
    for server in reversed(running_now):
        with server.connected() as connection:
            connection.execute(f"SET search_path = {schema_of(store)}".encode())
            found = connection.execute(query.encode(), values or None)
            return found.fetchall() if found.description else []
    raise AssertionError("no server runs")


def programs() -> Path | None:
    """Where PostgreSQL's programs are; None where it is not installed."""
    for place in _PLACES:
        for found in sorted(Path("/").glob(f"{place[1:]}/pg_ctl"), reverse=True):
            if (found.parent / "initdb").exists():
                return found.parent
    return None


class Server:
    """One server; it can be killed and started again.

    Attributes:
        kept: Schemas that more than one test needs.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        self.kept: set[str] = set()
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run(
            "initdb",
            "-D",
            folder / "data",
            "-U",
            "regrain",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self, name: str, *arguments: object) -> list[str]:
        drop: list[str] = []
        if self._user is not None:
            user, group = self._user.pw_uid, self._user.pw_gid
            drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        return [*drop, str(self._programs / name), *map(str, arguments)]

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
                with self.connected("postgres"):
                    return
            except psycopg.OperationalError:
                if time.monotonic() > due or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def connected(self, database: str = DATABASE) -> psycopg.Connection[Any]:
        """A connection, closed at the end of its block; every statement counts at once."""
        return psycopg.connect(
            host=str(self.folder), user="regrain", dbname=database, autocommit=True
        )

    @contextmanager
    def ledger_of(self, store: Path) -> Iterator[None]:
        """Keep an empty ledger for a directory that has no other trait of a store."""
        (store / "migration").mkdir()
        whereabouts.choose(str(store), self.url())
        try:
            open_ledger(str(store), create=True).close()
            yield
        finally:
            whereabouts.choose(str(store), None)

    def environment(self) -> dict[str, str]:
        """What tells the command of it."""
        return {"REGRAIN_STORE__DATABASE": self.url()}

    def url(self, database: str = DATABASE) -> str:
        """What ``[store] database`` says."""
        return f"postgresql+psycopg://regrain:not-shown@/{database}?host={self.folder}"

    def run_sql(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside of a transaction."""
        with self.connected(database) as connection:
            connection.execute(statement.encode())

    def rows(self, query: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """What a query gives."""
        with self.connected(database) as connection:
            return connection.execute(query.encode()).fetchall()

    def ledgers(self) -> set[str]:
        """The schemas in which there is one."""
        found = self.rows("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'regrain\\_%'")
        return {schema for (schema,) in found}

    def forget(self, ledgers: set[str]) -> None:
        """Drop what a test left."""
        for schema in sorted(ledgers):
            self.run_sql(f"DROP SCHEMA {schema} CASCADE", DATABASE)

    def kill(self) -> None:
        """Kill all of it at once, as a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(SECONDS)
            (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
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
        server.run_sql(f"CREATE DATABASE {DATABASE}")
        running_now.append(server)
        yield server
    finally:
        if server in running_now:
            running_now.remove(server)
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
