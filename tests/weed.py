"""A SeaweedFS of the test's own, which speaks S3: on loopback, on free ports, killed at will."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.remotes import Server

ACCESS = "an-access-key-of-tests"
SECRET = "a-secret-key-of-tests-that-nobody-may-see"
BUCKET = "packages"
WEED = Path(sys.executable).parent / "weed"


class Weed(Server):
    """SeaweedFS, all of it in one process."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        (place / "data").mkdir(parents=True)
        (place / "s3.json").write_text(
            json.dumps(
                {
                    "identities": [
                        {
                            "name": "tests",
                            "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}],
                            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                        }
                    ]
                }
            )
        )
        names = ("master", "volume", "filer", "s3")
        free = iter(free_ports(2 * len(names)))
        self._ports = [f"-{name}.port{kind}={next(free)}" for name in names for kind in _KINDS]
        self.port = int(self._ports[-2].rpartition("=")[2])

    @property
    def environment(self) -> dict[str, str]:
        """What regrain needs to talk to it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    @property
    def filer(self) -> str:
        """Where a mount finds its files."""
        ports = [one.rpartition("=")[2] for one in self._ports if one.startswith("-filer.port")]
        return f"127.0.0.1:{'.'.join(ports)}"

    def start(self) -> None:
        """Start it, and wait until it has the bucket."""
        command: list[str | Path] = [
            WEED,
            "-logtostderr",
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self._place / 'data'}",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=20",
            "-s3",
            "-s3.autoCreateBucket=false",
            f"-s3.config={self._place / 's3.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *self._ports,
        ]
        self._launch(command, self._has_bucket, "SeaweedFS")

    def store(self, bucket: str = BUCKET) -> Any:
        """The library's view of a bucket, to look into it."""
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key_id=ACCESS,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": "5s"},
            retry_config={"max_retries": 0},
        )

    def _has_bucket(self) -> bool:
        import obstore
        from obstore.exceptions import BaseError

        self._assert_alive()
        try:
            obstore.put(self.store(), "probe", b"1")
            obstore.delete(self.store(), "probe")
        except (BaseError, OSError):
            self._make_bucket()
            return False
        return True

    def _make_bucket(self) -> None:
        """Ask the filer for the bucket's directory, which is what a bucket is there."""
        import http.client

        port = next(int(p.rpartition("=")[2]) for p in self._ports if p.startswith("-filer.port="))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            connection.request("POST", f"/buckets/{BUCKET}/")
            connection.getresponse().read()
        connection.close()


_KINDS = ("", ".grpc")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
