"""Build a legacy store of real packages from wheels.

Each wheel becomes one package of the shape a package manager leaves behind:
``<package-hash>/{manifest.toml,sbom.spdx.json,opt/pm/live/lib/python3.11/site-packages/…}``.
The wheels are asked for by exact version and for one fixed platform, and nothing of the
building machine enters the tree, so the result is the same everywhere.
"""

from __future__ import annotations

import calendar
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

DEFAULT_LIST = Path(__file__).with_name("wheels.txt")
LIVE = "opt/pm/live/lib/python3.11/site-packages"
UNFINISHED = ".building-"

# One fixed target, oldest platform first, because pip takes the first that fits.
TARGET = (
    *("--only-binary", ":all:", "--no-deps"),
    *("--implementation", "cp", "--python-version", "3.11"),
    *("--abi", "cp311", "--abi", "abi3", "--abi", "none"),
    *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64"),
    *("--platform", "manylinux_2_24_x86_64", "--platform", "manylinux_2_27_x86_64"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "any"),
)
DOWNLOADS = 4


class WheelError(Exception):
    """A wheel cannot be had, or a list cannot be understood."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of a list of wheels."""

    name: str
    version: str

    def __str__(self) -> str:
        """Give the line back."""
        return f"{self.name}=={self.version}"


def cache_root() -> Path:
    """Say where downloads and built corpora are kept between runs.

    Returns:
        The directory of these benchmarks in the user's cache.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "regrain-bench"


def read_list(path: Path = DEFAULT_LIST) -> list[Requirement]:
    """Read a list of wheels, one ``name==version`` a line, ``#`` for comments.

    Args:
        path: The list.

    Returns:
        The wheels it names, in its order.

    Raises:
        WheelError: A line is not of that form.
    """
    requirements = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, separator, version = text.partition("==")
        if not (name and separator and version):
            message = f"{path}, line {number}: expected name==version, found {text!r}"
            raise WheelError(message)
        requirements.append(Requirement(name, version))
    return requirements


def fetch(
    requirements: Sequence[Requirement], cache: Path, say: Callable[[str], None]
) -> list[Path]:
    """Have every wheel in the cache, downloading those that are not.

    Args:
        requirements: The wheels wanted.
        cache: The directory that keeps them, made if absent.
        say: Called with a line for each download.

    Returns:
        The wheel files, in the order of the requirements.

    Raises:
        WheelError: Some wheels cannot be had; the message names every one, and why.
    """
    cache.mkdir(parents=True, exist_ok=True)
    present = _cached(cache)
    missing = [item for item in requirements if _key(item.name, item.version) not in present]
    problems = []
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        downloads = {pool.submit(_download, item, cache): item for item in missing}
        for count, done in enumerate(as_completed(downloads), start=1):
            error = done.exception()
            if error:
                problems.append(f"{downloads[done]}: {error}")
            say(f"{'missed' if error else 'downloaded'} {count}/{len(missing)} {downloads[done]}")
    if problems:
        raise WheelError("\n".join(["cannot get these wheels:", *sorted(problems)]))
    present = _cached(cache)
    return [present[_key(item.name, item.version)] for item in requirements]


def build(wheels: Iterable[Path], store: Path, say: Callable[[str], None]) -> list[str]:
    """Unpack wheels into a legacy store; packages that exist are left alone.

    Args:
        wheels: The wheel files.
        store: The store's directory, made if absent.
        say: Called with a line for each package that was built.

    Returns:
        The package hashes, in the order of the wheels.
    """
    store.mkdir(parents=True, exist_ok=True)
    for leftover in store.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover)
    packages = {wheel: blake3(wheel.read_bytes()).hexdigest() for wheel in wheels}
    absent = [wheel for wheel, name in packages.items() if not (store / name).exists()]
    # The largest first, so that no worker is left alone with one at the end.
    absent.sort(key=lambda wheel: wheel.stat().st_size, reverse=True)
    with ProcessPoolExecutor(initializer=os.umask, initargs=(0o022,)) as pool:
        jobs = {pool.submit(_unpack, wheel, store, packages[wheel]): wheel for wheel in absent}
        for count, done in enumerate(as_completed(jobs), start=1):
            say(f"unpacked {count}/{len(absent)} {jobs[done].name}: {done.result()} files")
    return list(packages.values())


def _key(name: str, version: str) -> tuple[str, str]:
    """Spell a project's name the way that makes its spellings equal."""
    return re.sub(r"[-_.]+", "-", name).lower(), version


def _name_and_version(wheel: Path) -> tuple[str, str]:
    """Take name and version from a wheel's file name."""
    name, version, *_ = wheel.name.split("-")
    return name, version


def _cached(cache: Path) -> dict[tuple[str, str], Path]:
    """List the wheels that a cache holds."""
    return {_key(*_name_and_version(wheel)): wheel for wheel in sorted(cache.glob("*.whl"))}


def _download(requirement: Requirement, cache: Path) -> None:
    """Download one wheel; it enters the cache complete or not at all."""
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "2")
        result = subprocess.run(
            [*pip, "download", "--quiet", *TARGET, "--dest", directory, str(requirement)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            reasons = [line for line in result.stderr.splitlines() if line.startswith("ERROR:")]
            raise WheelError(reasons[-1] if reasons else result.stderr.strip())
        for wheel in Path(directory).glob("*.whl"):
            wheel.rename(cache / wheel.name)


def _unpack(wheel: Path, store: Path, package_hash: str) -> int:
    """Build one package beside its place and rename it there.

    Returns:
        How many files it has.
    """
    name, version = _name_and_version(wheel)
    package = store / f"{UNFINISHED}{package_hash}"
    live = package / LIVE
    live.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        files = sum(_extract(archive, member, live) for member in archive.infolist())
    own = {
        "manifest.toml": manifest(name, version),
        "sbom.spdx.json": json.dumps(
            {"spdxVersion": "SPDX-2.3", "name": name, "versionInfo": version}
        ),
    }
    for file_name, text in own.items():
        (package / file_name).write_text(text, encoding="utf-8")
        os.utime(package / file_name, (0, 0))
    for directory, _, _ in os.walk(package, topdown=False):
        os.utime(directory, (0, 0))  # last, as every new name had set it to now
    package.rename(store / package_hash)
    return files + len(own)


def manifest(name: str, version: str) -> str:
    """Write the package's own manifest.

    Args:
        name: The package's name.
        version: Its version.

    Returns:
        The text of its ``manifest.toml``.
    """
    return (
        f'[package]\nname = "{name}"\nversion = "{version}"\nrevision = 1\narch = "arm64"\n'
        "\n[dependencies]\n"
    )


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, directory: Path) -> bool:
    """Unpack one member, a file with the mode and time the archive gives it.

    Returns:
        Whether it is a file.
    """
    path = archive.extract(member, directory)
    if member.is_dir():
        return False
    os.chmod(path, stat.S_IMODE(member.external_attr >> 16) or 0o644)
    # Archives know no time zone and two seconds; UTC, whatever the machine's own zone.
    seconds = calendar.timegm((*member.date_time, 0, 0, 0))
    os.utime(path, (seconds, seconds))
    return True
