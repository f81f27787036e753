"""What is published: both archives, what is in them, and that they come out the same every time."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EPOCH = "1795305600"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="needs hatchling"
)


def build(source: Path, place: Path) -> tuple[Path, Path]:
    """Build sdist and wheel of a source tree."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", place],
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        check=True,
    )
    (sdist,) = place.glob("*.tar.gz")
    (wheel,) = place.glob("*.whl")
    return sdist, wheel


def tracked() -> set[str]:
    """What belongs to the project; also what was not added to git yet."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only a git checkout knows its files: {error}")
    return {name for name in listing.decode().split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def test_the_sdist_is_the_repository(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members}
    assert names == tracked() | {"PKG-INFO"}
    assert {member.mtime for member in members} == {int(EPOCH)}
    assert {(member.uid, member.gid) for member in members} == {(0, 0)}
    assert all(member.isfile() for member in members)


def test_the_wheel_is_the_package(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as archive:
        names = set(archive.namelist())
    own = {name.removeprefix("src/") for name in tracked() if name.startswith("src/regrain/")}
    assert {name for name in names if not name.partition("/")[0].endswith(".dist-info")} == own
    assert "regrain/py.typed" in own
    about = {name.partition("/")[2] for name in names - own}
    licences = {"licenses/LICENSE", "licenses/src/regrain/web/static/uplot.LICENSE.txt"}
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", *licences}


def test_the_same_bytes_come_out_of_the_sdist(archives: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(archives[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    (source / "PKG-INFO").unlink()  # made by the build; a checkout has none
    for path in source.rglob("*"):
        os.utime(path)  # another time, another machine
    again = build(source, tmp_path / "dist")
    digests = [
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in pair]
        for pair in (archives, again)
    ]
    assert digests[0] == digests[1]
