"""Fixtures of the fault tests: a small store, copies of it, and a process that dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import remove
from tests.faults import undoing
from tests.faults.crash_driver import Crasher, crasher
from tests.faults.inline import migrate
from tests.faults.small import Scene, copy_of, make_template, quick_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with quick_place(tmp_path_factory.mktemp("crash")) as found:
        yield found


@pytest.fixture(scope="module")
def template(place: Path, seed: int) -> Scene:
    return make_template(place / "template", seed)


@pytest.fixture
def scene(template: Scene) -> Iterator[Scene]:
    made = copy_of(template, template.path.with_name("scene"))
    yield made
    remove(made.path)


@pytest.fixture(scope="module")
def crash() -> Iterator[Crasher]:
    with crasher() as process:
        yield process


@pytest.fixture(scope="module")
def migrated(template: Scene) -> Iterator[Scene]:
    made = copy_of(template, template.path.with_name("migrated"))
    migrate(made.path, undoing.WAY)
    yield Scene(made.path, made.packages, template.before)
    remove(made.path)


@pytest.fixture(scope="module", params=sorted(undoing.BEFORE))
def stage(request: pytest.FixtureRequest, migrated: Scene) -> Iterator[tuple[str, Scene]]:
    """A store right before a step."""
    step = request.param
    made = copy_of(migrated, migrated.path.with_name(f"before-{step}"))
    scene = Scene(made.path, made.packages, migrated.before)
    for one in undoing.BEFORE[step]:
        undoing.run(one, scene)
    yield step, scene
    remove(scene.path)
