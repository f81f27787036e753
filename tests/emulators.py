"""An emulator of Azure's object storage, on loopback, killed at will.

It is Azurite, ``azurite-blob`` of ``npm install azurite``, and looked for on PATH. None is known
for Google's: what can be had does not speak the protocol (XML) that the library uses.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import shutil
from contextlib import closing
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.remotes import Server
from tests.weed import free_ports

BUCKET = "packages"
ACCOUNT = "devstoreaccount1"
KEY = base64.b64encode(b"the key of an account of nobody, which is in no log").decode()


class Azurite(Server):
    """The emulator."""

    def __init__(self, place: Path) -> None:
        found = shutil.which("azurite-blob")
        if found is None:
            pytest.skip("azurite-blob is not on PATH")
        super().__init__(place)
        self._program = found
        (self._port,) = free_ports(1)
        self._endpoint = f"http://127.0.0.1:{self._port}/{ACCOUNT}"

    @property
    def environment(self) -> dict[str, str]:
        """What regrain needs to talk to it."""
        return {
            "AZURE_STORAGE_ENDPOINT": self._endpoint,
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        }

    def store(self) -> Any:
        """The library's view of the container, to look into it."""
        from obstore.store import AzureStore

        return AzureStore(
            BUCKET,
            endpoint=self._endpoint,
            account_name=ACCOUNT,
            account_key=KEY,
            client_options={"allow_http": True},
        )

    def start(self) -> None:
        """Start it, and wait until it has the container."""
        port = ["--blobHost", "127.0.0.1", "--blobPort", str(self._port)]
        place = ["--location", str(self._place)]
        self._launch(
            [self._program, *port, *place, "--silent", "--skipApiVersionCheck"],
            self._has_container,
            "Azurite",
            {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
        )

    def _has_container(self) -> bool:
        self._assert_alive()
        try:
            return self._make_container() in {201, 409}
        except (OSError, http.client.HTTPException):
            return False

    def _make_container(self) -> int:
        """Ask for it; return the status of the answer. The library cannot make any."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        told = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        signed = "PUT" + 12 * "\n" + told + f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
        mac = hmac.digest(base64.b64decode(KEY), signed.encode(), hashlib.sha256)
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}"
        headers["Content-Length"] = "0"
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)) as connection:
            connection.request("PUT", f"/{ACCOUNT}/{BUCKET}?restype=container", headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
