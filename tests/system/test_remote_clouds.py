"""``push``, ``pull``, ``remote``, ``backup`` with Azure's emulator; what Google's is asked."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from urllib.parse import unquote

import obstore
import pytest
from obstore.exceptions import BaseError

from regrain.remote.place import Remote
from tests.command import Regrain
from tests.emulators import BUCKET, KEY, Azurite
from tests.remotes import assert_same, fill, make_store
from tests.waiting import until

URL = f"az://{BUCKET}"
LARGE = 40 << 20
"""A file of so many bytes goes in parts."""


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    server = Azurite(tmp_path_factory.mktemp("azure"))
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_there_and_back(workplace: Path, seed: int, azure: Azurite) -> None:
    before = fill(workplace / "source", seed, 2, 40, large=LARGE)
    url = f"{URL}/pm/both-{seed}"
    source = make_store(workplace / "source", azure)
    source("push", "--all", url)
    assert source("push", "--all", url, "--json").of_type("summary")[0]["already_present"] == 2
    target = make_store(workplace / "target", azure)
    target("pull", "--all", url)
    assert_same(target, before, workplace / "out")
    listed = target("remote", "list", url).text.split()
    assert listed == sorted(before)
    target("remote", "verify", url)

    keys = [one["path"] for page in obstore.list(azure.store(), f"pm/both-{seed}") for one in page]
    assert not [key for key in keys if "/leases/" in key]
    (gone,) = (key for key in keys if f"packages/{min(before)}/" in key)
    obstore.delete(azure.store(), gone)
    target("remote", "gc", url, "--execute", "--grace", "0")
    target("remote", "verify", url)
    left = [one["path"] for page in obstore.list(azure.store(), f"pm/both-{seed}") for one in page]
    assert len(left) < len(keys) - 40
    damaged = next(key for key in left if "/objects/" in key)
    obstore.put(azure.store(), damaged, b"nothing of the kind")
    target("remote", "verify", url, code=4)


@pytest.mark.slow
def test_a_key_is_put_once(seed: int, azure: Azurite) -> None:
    """The condition by which pushes at once do not overwrite each other's lists."""
    key = f"once-{seed}"
    obstore.put(azure.store(), key, b"first", mode="create")
    with pytest.raises(BaseError):
        obstore.put(azure.store(), key, b"second", mode="create")
    assert bytes(obstore.get(azure.store(), key).bytes()) == b"first"


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["create", "server"])
def test_a_backup_that_was_cut_short_goes_on(
    workplace: Path, seed: int, azure: Azurite, victim: str
) -> None:
    before = fill(workplace / "source", seed, 2, 40, large=LARGE)
    prefix = f"backups/{victim}-{seed}"
    url = f"{URL}/{prefix}"
    source = make_store(workplace / "source", azure)

    def sent() -> int:
        return sum(len(page) for page in obstore.list(azure.store(), f"{prefix}/objects"))

    with source.running("backup", "create", url) as process:
        until(lambda: sent() > 5, "the backup sends")
        if victim == "server":
            azure.kill()
            assert process.wait(timeout=100) == 1
            azure.start()
        else:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    source("backup", "create", url)
    source("backup", "check", url)
    fresh = Regrain(workplace / "fresh", source.environment)
    fresh("backup", "restore", url)
    assert_same(fresh, before, workplace / "out")


@pytest.mark.slow
def test_refusals_say_what_to_do_and_no_secret(workplace: Path, azure: Azurite) -> None:
    fill(workplace / "source", 1, packages=1, files=1, large=LARGE)
    source = make_store(workplace / "source", azure)
    absent = source("push", "--all", "az://nosuchbucket/x", code=1)
    assert "no such bucket" in absent.stderr
    wrong = {"AZURE_STORAGE_ACCOUNT_KEY": "aHVudGVyMmh1bnRlcjJodW50ZXIy"}
    denied = source("push", "--all", f"{URL}/x", code=1, env=wrong)
    assert "denied" in denied.stderr
    for secret in (KEY, wrong["AZURE_STORAGE_ACCOUNT_KEY"]):
        assert secret not in absent.stderr + denied.stderr


class _Asked(BaseHTTPRequestHandler):
    """Notes what it is asked, and has nothing."""

    requests: ClassVar[list[tuple[str, str, str | None]]] = []

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        condition = self.headers.get("x-goog-if-generation-match")
        self.requests.append((self.command, self.path, condition))
        self.send_response(412 if condition else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_PUT = _answer  # noqa: N815 -- as the library calls them

    def log_message(self, *_: object) -> None:
        pass


def test_google_is_asked_to_put_what_is_not_there_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        account = tmp_path / "account.json"
        url = f"http://127.0.0.1:{server.server_address[1]}"
        told = {"gcs_base_url": url, "disable_oauth": True}
        blank = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        account.write_text(json.dumps({**told, **blank}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
        monkeypatch.setenv("GOOGLE_ENDPOINT", url)  # no TLS
        assert not Remote("gs://bucket/pm").put_new("regrain.json", b"{}")
        server.shutdown()
    (asked, _, _), (put, path, condition) = _Asked.requests
    assert (asked, put, condition) == ("HEAD", "PUT", "0")
    assert unquote(path) == "/bucket/pm/regrain.json"
