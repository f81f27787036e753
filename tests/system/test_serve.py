"""``serve``: what is answered, in every state of a store, and that nothing is written to it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.command import Regrain
from tests.conftest import remove
from tests.system.calling import call, judge, state
from tests.system.serving import Server, serving
from tests.verbs import PACKAGE, Model, make_model, make_package
from tests.waiting import until

pytest.importorskip("uvicorn", reason="the server is an extra: regrain[web]")
pytest.importorskip("starlette", reason="the server is an extra: regrain[web]")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    place = tmp_path_factory.mktemp("serve")
    yield make_model(place)
    remove(place)


@pytest.fixture
def copied(model: Model, store_path: Path) -> Model:
    return model.copied(store_path)


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[Server]:
    with serving(Regrain(model.path), "--allow-host", "Regrain.Example") as found:
        yield found


STRICT = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


# what is answered


PAGE = ("/", "/packages", f"/package/{PACKAGE}", "/static/page.js", "/static/uplot.LICENSE.txt")
OTHERS = ("/metrics", "/healthz", "/api/status")
MISSING = ("/none", "/metrics/", "/static/../page.py", "/static/none", "/package/none")


@pytest.mark.parametrize("path", [*PAGE, *OTHERS, *MISSING])
def test_answers_are_strict(server: Server, path: str) -> None:
    answer = server.get(path)
    assert answer.status == (404 if path in MISSING else 200)
    assert answer.headers.items() >= STRICT.items()
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in answer.headers
    head = server.get(path, method="HEAD")
    assert (head.status, head.body) == (answer.status, b"")
    assert head.headers.keys() == answer.headers.keys()


PACKAGES = {"completed": "migrated_packages", "pending": "pending_packages"}


def test_metrics(server: Server, model: Model) -> None:
    answer = server.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.metrics["regrain_store_readable"] == 1
    status = Regrain(model.path)("status", "--json").document
    assert (
        answer.metrics['regrain_packages{status="completed"}'] == status["migrated_packages"] == 3
    )
    assert answer.metrics['regrain_packages{status="pending"}'] == status["pending_packages"] == 1
    assert answer.metrics["regrain_files"] == status["total_files"]
    assert answer.metrics["regrain_sync_seconds_count"] >= 3
    printed = Regrain(model.path)("serve", "--once").text
    names = [line.rpartition(" ")[0] for line in answer.text.splitlines()]
    assert [line.rpartition(" ")[0] for line in printed.splitlines()] == names


def test_status_is_that_of_the_command(server: Server, model: Model) -> None:
    answer = server.get("/api/status")
    assert answer.headers["content-type"] == "application/json"
    theirs = Regrain(model.path)("status", "--json").document
    assert answer.document.items() <= theirs.items()
    assert theirs.keys() - answer.document.keys() <= {"space"}, "what looks at every file"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:9470"}, 403),
        ({"Host": "regrain.example:443"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Length": "3"}, 413),
    ],
)
def test_who_is_answered(server: Server, headers: dict[str, str], status: int) -> None:
    for path in ("/metrics", "/healthz", "/api/status", "/"):
        answer = server.get(path, **headers)
        assert answer.status == status
        assert ("regrain_" in answer.text or "total_packages" in answer.text) <= (status == 200)


def test_only_reading(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = server.get("/api/status", method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_what_is_no_request(server: Server) -> None:
    for raw, status in (
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"403"),
        (b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 17_000, b"400"),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
    ):
        with server.connect() as connection:
            connection.sendall(raw)
            assert connection.recv(1 << 16).split(b" ")[1] == status, raw[:60]
    assert server.get("/healthz").status == 200


# nothing is written


def test_nothing_is_written(copied: Model) -> None:
    before = state(copied.path)
    top = copied.path.stat().st_mtime_ns
    with serving(Regrain(copied.path)) as server:
        for path in (*PAGE, *OTHERS):
            assert server.get(path).status == 200
        with server.connect() as watching:  # long enough for the store to be measured, too
            watching.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            said = b""
            while b"Measured" not in said:
                said += watching.recv(1 << 16)
    assert state(copied.path) == before
    assert copied.path.stat().st_mtime_ns == top, "a file came and went"


def untouched(path: Path) -> dict[bytes, tuple[object, ...]]:
    """All there is, as it is; but as root SQLite sets the owner of the log to what it was."""
    logs = (b"state.sqlite-wal", b"state.sqlite-shm")
    return {name: fact[:-1] if name in logs else fact for name, fact in state(path).items()}


def test_nothing_is_written_beside_a_writer(copied: Model) -> None:
    """The log that a writer left when it was killed stays what it is, and is read."""
    program = (
        "import os, sys; from regrain.ledger import open_ledger\n"
        "ledger = open_ledger(sys.argv[1]); ledger.concern(sys.argv[2], 'rot')\n"
        "print(flush=True); sys.stdin.readline(); os._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, copied.path, PACKAGE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for is_alive in (True, False):
            before = untouched(copied.path)
            assert b"state.sqlite-wal" in before
            with serving(Regrain(copied.path)) as server:
                answer = server.get("/healthz")
                assert (answer.status, answer.document["status"]) == (503, "critical")
                assert server.get("/metrics").metrics["regrain_integrity_packages"] == 1
            assert untouched(copied.path) == before
            if is_alive:
                writer.communicate(b"\n")


# in every state of a store


def test_an_empty_store(regrain: Regrain, store_path: Path) -> None:
    store_path.mkdir()
    regrain("init")
    with serving(regrain) as server:
        found = server.get("/metrics").metrics
        assert found["regrain_content_bytes"] == found['regrain_packages{status="pending"}'] == 0
        assert server.get("/healthz").document["status"] == "healthy"
        assert server.get("/api/status").document["next_command"] == "regrain verify --level deep"


def test_it_outlasts_runs_and_phases(copied: Model) -> None:
    regrain = Regrain(copied.path, {"REGRAIN_MIGRATION__SETTLE": "0"})
    with serving(regrain) as server:

        def holds(line: str) -> None:
            until(lambda: server.get("/metrics").metrics.get(line) == 1, line)

        holds('regrain_phase{phase="dual"}')
        regrain("migrate")
        until(lambda: server.get("/api/status").document["migrated_packages"] == 4, "migrated")
        regrain("cutover", "--no-backup")
        holds('regrain_phase{phase="file_level"}')
        regrain("rollback")
        holds('regrain_phase{phase="rolled_back"}')
        regrain("migrate")
        holds('regrain_phase{phase="dual"}')
        errors = server.get("/metrics").metrics['regrain_errors_total{kind="package_failed"}']
        assert errors == 0
        make_package(copied.path / ("34" * 32), "bad")
        os.mkfifo(copied.path / ("34" * 32) / "fifo")
        regrain("migrate", code=3)
        until(
            lambda: (
                server.get("/metrics").metrics['regrain_errors_total{kind="package_failed"}'] == 1
            ),
            "counted",
        )
        assert server.get("/metrics").metrics['regrain_packages{status="failed"}'] == 1


def test_what_holds_a_migration_back(copied: Model) -> None:
    regrain = Regrain(copied.path)
    with serving(regrain) as server:
        assert server.get("/metrics").metrics["regrain_paused"] == 0
        regrain("pause")
        until(lambda: server.get("/metrics").metrics["regrain_paused"] == 1, "paused")
        found = server.get("/metrics").metrics
        assert found["regrain_throttled"] == found['regrain_throttled_by{cause="paused"}'] == 1
        assert server.get("/api/status").document["throttle_reason"] == "paused by 'regrain pause'"


def test_a_store_that_is_lost_and_found(copied: Model, workplace: Path) -> None:
    regrain = Regrain(copied.path)
    with serving(regrain) as server:
        assert server.get("/healthz").status == 200
        copied.path.rename(workplace / "aside")
        until(lambda: server.get("/healthz").status == 503, "lost")
        document = server.get("/api/status").document
        assert (document["message_type"], document["exit_code"]) == ("exit_error", 10)
        metrics = server.get("/metrics")
        assert (metrics.status, metrics.metrics["regrain_store_readable"]) == (200, 0)
        (workplace / "aside").rename(copied.path)
        until(lambda: server.get("/healthz").status == 200, "found")
        (copied.path / "state.sqlite").write_bytes(b"no database" * 1000)
        until(lambda: server.get("/healthz").status == 503, "broken")
        assert server.get("/healthz").document["exit_code"] == 4


def test_a_ledger_that_somebody_keeps_busy(copied: Model) -> None:
    connection = sqlite3.connect(copied.path / "state.sqlite", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        with serving(Regrain(copied.path)) as server:
            assert server.get("/api/status").document["total_packages"] == 4
    finally:
        connection.close()


def test_another_user_and_a_read_only_store(copied: Model) -> None:
    """What a hardened unit allows is enough: no right to write anything."""
    regrain = Regrain(copied.path, prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    subprocess.run(["chmod", "-R", "a-w", copied.path], check=True)
    with serving(regrain) as server:
        assert server.get("/api/status").document["total_packages"] == 4


# its limits


LOOK = re.compile(r"regrain_look_seconds \d")


def test_many_ask_and_one_looks(copied: Model) -> None:
    with serving(Regrain(copied.path)) as server:
        asked = [server.get("/metrics").text for _ in range(5)]
        looks = {line for text in asked for line in text.splitlines() if LOOK.match(line)}
        assert 1 <= len(looks) < len(asked), "each was looked for"


def test_who_says_nothing_keeps_nobody_waiting(server: Server) -> None:
    silent = [server.connect() for _ in range(40)]
    try:
        for connection in silent[::2]:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: local")
        assert server.get("/healthz").status == 200
    finally:
        for connection in silent:
            connection.close()


def test_too_many_at_once(server: Server) -> None:
    silent = [server.connect() for _ in range(64)]
    try:
        until(lambda: server.get("/healthz").status == 503, "refused")
    finally:
        for connection in silent:
            connection.close()
    until(lambda: server.get("/healthz").status == 200, "answered again")


@pytest.mark.slow
def test_who_is_slow_is_cut_off(server: Server) -> None:
    """Whoever sends a request byte by byte, or nothing, has ten seconds for all of it."""
    with server.connect() as connection, server.connect() as silent:
        connection.settimeout(1)
        sent = 0
        try:
            while sent < 60:
                connection.sendall(b"G" if not sent else b"x")
                sent += 1
                try:
                    assert connection.recv(1) == b""
                    break
                except TimeoutError:
                    continue
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert 5 < sent < 15
        silent.settimeout(5)
        assert silent.recv(1) == b""


@pytest.mark.slow
def test_reads_beside_a_run_are_exported(store_path: Path) -> None:
    """A run of some seconds, beside which a probe reads since a limit is set."""
    limits = {"LATENCY_SLOWDOWN_MAX": "1000", "PAUSE_MS": "300", "SETTLE": "0"}
    regrain = Regrain(store_path, {f"REGRAIN_MIGRATION__{key}": limits[key] for key in limits})
    for number in range(20):
        make_package(store_path / f"{number:064x}", f"package {number}")
    regrain("init")
    with serving(regrain) as server, regrain.running("migrate", "--batch", "1") as run:
        while_running: set[str] = set()
        while run.poll() is None:
            found = server.get("/metrics").metrics
            if found["regrain_migration_running"]:
                while_running |= found.keys()
        assert run.returncode == 0
        assert {
            "regrain_foreground_seconds",
            "regrain_foreground_baseline_seconds",
        } <= while_running
        until(lambda: not server.get("/metrics").metrics["regrain_run_lock_held"], "ended")
        found = server.get("/metrics").metrics
        assert found["regrain_batch_seconds_count"] == 20
        assert found["regrain_foreground_read_seconds_count"] >= 9
        assert 0 < found["regrain_foreground_read_seconds_sum"] < 60
        assert "regrain_foreground_seconds" not in found, "of the run under way alone"


def is_held(server: Server, connection: socket.socket) -> bool:
    """Whether the server's end of a connection is open, as the system knows it."""
    ports = (server.port, connection.getsockname()[1])
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, condition = line.split()[:4]
        if tuple(int(end.rpartition(":")[2], 16) for end in (local, remote)) == ports:
            return condition == "01"
    return False


@pytest.mark.slow
def test_who_does_not_take_the_answer_is_cut_off(copied: Model) -> None:
    """An answer of some ten megabytes, more than the system keeps on its way."""
    with closing(sqlite3.connect(copied.path / "state.sqlite")) as ledger:
        rows = ((f"{number:064x}", "rot " * 100, 0) for number in range(30_000))
        ledger.executemany("INSERT INTO integrity VALUES (?, ?, ?)", rows)
        ledger.commit()

    with serving(Regrain(copied.path)) as server:
        assert len(server.get("/api/status").body) > 10_000_000
        with server.connect() as connection:
            connection.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(8) == b"HTTP/1.1"
            assert is_held(server, connection)
            assert 10 < until(lambda: not is_held(server, connection), "cut off") < 30


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_ends_when_it_is_told(copied: Model, number: signal.Signals, code: int) -> None:
    with serving(Regrain(copied.path)) as server, server.connect():
        assert server.get("/").status == 200
        server.process.send_signal(number)
        assert server.process.wait(20) == code
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""


@pytest.mark.parametrize("place", ["nonsense", "127.0.0.1", "127.0.0.1:x", "::1:80", "a:99999", ""])
def test_bad_places(model: Model, place: str) -> None:
    judge(call(model.path, ["serve", "--listen", place]), 2, "HOST:PORT")


def test_a_place_that_is_taken(model: Model, server: Server) -> None:
    words = ["serve", "--listen", f"127.0.0.1:{server.port}"]
    judge(call(model.path, words), 1, "Address already in use", "--listen")
