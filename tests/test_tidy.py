"""The project's shape, so far as neither ruff nor mypy nor import-linter can hold it."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"
TESTS = ROOT / "tests"
BENCH = ROOT / "bench"


def python_files(*folders: Path) -> list[Path]:
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    assert files
    return files


def imported_modules(path: Path) -> Iterator[str]:
    """The full name of every module, or member of one, that a file imports from outside."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tracked_files() -> list[Path]:
    """What is or is about to be in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only a git checkout knows its files: {error}")
    paths = (ROOT / name for name in listing.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize(("folder", "lines_max"), [(SRC, 400), (TESTS, 500)], ids=["src", "tests"])
def test_files_are_short(folder: Path, lines_max: int) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files(folder)}
    assert {path: lines for path, lines in lengths.items() if lines > lines_max} == {}


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"util", "utils", "helper", "helpers"}
    files = python_files(SRC, TESTS, BENCH)
    assert [path for path in files if drawers & {path.stem, path.parent.name}] == []


def test_source_has_no_notes_to_self() -> None:
    note = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
    assert [path for path in python_files(SRC) if note.search(path.read_text())] == []


def test_fakes_instead_of_mocks() -> None:
    # ruff bans them in src; in tests and bench its ban is off for the sake of the bare os calls.
    users = [
        path
        for path in python_files(TESTS, BENCH)
        if any(name.startswith("unittest.mock") for name in imported_modules(path))
    ]
    assert users == []


def test_files_name_no_place_of_ours() -> None:
    # Each pattern is written so that it does not match its own text.
    places = re.compile(
        rb"(?<![\w.})-])/(?:work|root|home)/"  # a developer's machine
        rb"|\b(?:pypi|pythonhosted|npmjs|deb[.]debian|crates)[.](?:org|io)\b"  # registries
        rb"|[.][.]/shared\b"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.decode(errors='replace').strip()}"
        for path in tracked_files()
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if places.search(line)
    ]
    assert found == []


def test_docs_name_every_verb() -> None:
    from regrain.cli import main

    assert isinstance(main, click.Group)
    verbs = main.list_commands(click.Context(main))
    assert verbs
    docs = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(path.read_text() for path in docs)
    unnamed = [verb for verb in verbs if not re.search(rf"(?:`|\bregrain ){verb}\b", text)]
    assert unnamed == []


def test_every_table_of_the_docs_is_in_one_piece() -> None:
    # A merge that keeps both sides leaves a row twice, or rows that no header stands above.
    broken = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        lines = path.read_text().splitlines()
        for above, line, below in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
            is_first = line.startswith("|") and not above.startswith("|")
            if is_first and not re.fullmatch(r"[|: -]+", below):
                broken.append(f"{path.name}: {line[:60]}")
    assert broken == []


def test_public_names_have_docstrings() -> None:
    import regrain

    assert regrain.__all__
    public = {name: getattr(regrain, name) for name in regrain.__all__}
    mute = [
        name
        for name, value in public.items()
        if (inspect.isclass(value) or inspect.isroutine(value))
        # A dataclass without a docstring is given its signature for one.
        and (not value.__doc__ or value.__doc__.startswith(f"{name}("))
    ]
    assert mute == []


def test_dependencies_are_declared() -> None:
    def normal(distribution: str) -> str:
        return re.sub(r"[-_.]+", "-", distribution).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"]]
    for extra in project.get("optional-dependencies", {}).values():
        requirements += extra
    declared = {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in requirements}

    providers = packages_distributions()
    tops = {
        name.partition(".")[0] for path in python_files(SRC) for name in imported_modules(path)
    } - {"regrain", *sys.stdlib_module_names}
    undeclared = {
        top
        for top in tops
        if not declared & {normal(distribution) for distribution in providers.get(top, [top])}
    }
    assert undeclared == set()
