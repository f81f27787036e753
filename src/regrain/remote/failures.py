"""What a service's refusals mean, in our words and without secrets."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from regrain.errors import RemoteError, UsageError, shown

SCHEMES = ("s3", "gs", "az", "file")
_WORDS_MAX = 300
_SECRET_NAME = re.compile(
    r"SECRET|KEY|TOKEN|PASSWORD|PASSWD|CREDENTIAL|SAS|SIGNATURE", re.IGNORECASE
)
_SECRET_BYTES_MIN = 6
_IN_URL = re.compile(r"(?<=[?&])[^=&\s\"']+=[^&\s\"')]+|(?<=://)[^/@\s]+(?=@)")

_DENIED = re.compile(r"\b40[13]\b")  # not as a part of a key
_AGAIN = "run the command again; it goes on where it was."
_CASES = (
    (
        ("NoSuchBucket", "specified bucket does not exist", "ContainerNotFound"),
        "there is no such bucket",
        "Make the bucket, or mend the URL.",
    ),
    (
        ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
        "access was denied",
        "Set the credentials of a user who may read and write there, in the environment.",
    ),
    (
        ("error sending request", "onnect", "dns", "timed out", "timeout"),
        "the service does not answer",
        f"Check the endpoint and the network, then {_AGAIN}",
    ),
)


def check_url(url: str) -> str:
    """Return a URL without the slash at its end.

    Raises:
        UsageError: It is none that is known, or holds a password, which is not repeated here.
    """
    try:
        parts = urlsplit(url)
        bad = not parts.scheme or bool(_CONTROL.search(url))
    except ValueError:
        bad = True
    if bad:
        raise UsageError("not a URL", advice="Write s3://bucket/path or file:///path.")
    if set("@:") & set(parts.netloc) or parts.query or parts.fragment:
        raise UsageError(
            "a URL with a user, a query or a fragment",
            why="what is in a URL ends up in logs",
            advice="Give credentials and endpoint in the environment; docs/remote.md names them.",
        )
    if parts.scheme not in SCHEMES:
        raise UsageError(
            f"no service of the scheme '{shown(parts.scheme)}' is known",
            advice="Use " + ", ".join(f"{scheme}://" for scheme in SCHEMES) + ".",
        )
    has_place = parts.path.startswith("/") if parts.scheme == "file" else bool(parts.netloc)
    if not has_place or (parts.scheme == "file" and parts.netloc):
        raise UsageError(
            "a URL without a place",
            path=url,
            advice="Write s3://bucket/path, or file:///path with three slashes.",
        )
    return url.rstrip("/")


_CONTROL = re.compile(r"[\x00-\x20\x7f]")


def failure(url: str, key: str, doing: str, error: Exception) -> RemoteError:
    """Return what to say of a request that was refused or not answered."""
    raw = str(error)
    why = cleaned(raw)
    for signs, words, advice in _CASES:
        is_denial = signs[0] == "AccessDenied" and _DENIED.search(raw)
        if is_denial or any(sign in raw for sign in signs):
            return RemoteError(
                f"cannot {doing}: {words}", path=f"{url}/{key}".rstrip("/"), why=why, advice=advice
            )
    if isinstance(error, PermissionError):
        advice = "Give this user the right to read and write there."
    else:
        advice = f"Mend the cause, then {_AGAIN}"
    return RemoteError(f"cannot {doing}", path=f"{url}/{key}".rstrip("/"), why=why, advice=advice)


def cleaned(text: str) -> str:
    """Return the first words of a library's message, with nothing in them that is secret."""
    text = " ".join(text.partition("Debug source")[0].split())
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SECRET_BYTES_MIN:
            text = text.replace(value, "***")
    return _IN_URL.sub("***", text)[:_WORDS_MAX]
