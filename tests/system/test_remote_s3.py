"""``push`` and ``pull`` with a real server that speaks S3; both sides are killed in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.awkward import make_legacy_store
from tests.compare import snapshot
from tests.remotes import assert_same, fill, make_store
from tests.trees import Abilities
from tests.waiting import until
from tests.weed import ACCESS, BUCKET, SECRET, Weed

URL = f"s3://{BUCKET}/pm"


def test_there_and_back_by_s3(workplace: Path, seed: int, weed: Weed) -> None:
    before = fill(workplace / "source", seed, packages=1, files=3)
    url = f"{URL}/everyday-{seed}"
    source = make_store(workplace / "source", weed)
    target = make_store(workplace / "target", weed)
    source("push", "--all", url)
    assert source("push", "--all", url, "--json").of_type("summary")[0]["already_present"] == 1
    target("pull", "--all", url)
    assert_same(target, before, workplace / "out")
    target("remote", "verify", url)
    target("remote", "gc", url, "--execute", "--grace", "0")
    target("remote", "verify", url)


def test_refusals_by_s3_say_what_to_do_and_no_secret(workplace: Path, weed: Weed) -> None:
    source = make_store(workplace / "source", weed)
    absent = source("push", "--all", "s3://nosuchbucket/x", code=1)
    assert "no such bucket" in absent.stderr
    wrong = {"AWS_SECRET_ACCESS_KEY": "wrong-secret-of-nobody"}
    denied = source("push", "--all", URL, code=1, env=wrong)
    assert "denied" in denied.stderr
    for secret in (ACCESS, SECRET, "wrong-secret-of-nobody"):
        assert secret not in absent.stderr + denied.stderr


@pytest.mark.slow
def test_the_awkward_store_by_s3(workplace: Path, seed: int, able: Abilities, weed: Weed) -> None:
    packages = make_legacy_store(workplace / "source", seed, able, large=40 << 20)
    before = {name: snapshot(package.path) for name, package in packages.items()}
    url = f"{URL}/awkward-{seed}"
    make_store(workplace / "source", weed)("push", "--all", url)
    target = make_store(workplace / "target", weed)
    target("pull", "--all", url)
    assert_same(target, before, workplace / "out")


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["push", "pull", "server"])
def test_killed_in_the_middle_and_again(
    workplace: Path, seed: int, weed: Weed, victim: str
) -> None:
    import obstore

    before = fill(workplace / "source", seed)
    prefix = f"pm/kill-{victim}-{seed}"
    url = f"s3://{BUCKET}/{prefix}"
    source = make_store(workplace / "source", weed)
    target = make_store(workplace / "target", weed)
    bucket = weed.store()

    def sent() -> int:
        return sum(len(page) for page in obstore.list(bucket, f"{prefix}/objects"))

    if victim == "pull":
        source("push", "--all", url)
        with target.running("pull", "--all", url, "--jobs", "1") as process:
            until(lambda: bool(os.listdir(target.store / "temp")), "the pull stages")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        target("verify", "--level", "deep")
    else:
        with source.running("push", "--all", url, "--jobs", "1") as process:
            until(lambda: sent() > 20, "the push sends")
            if victim == "server":
                weed.kill()
                assert process.wait(timeout=100) == 1  # it gives up, and says so
                weed.start()
            else:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        assert 20 < sent() < 4 * 61
        target("remote", "verify", url)  # what is listed is complete
    source("push", "--all", url)
    target("pull", "--all", url)
    assert_same(target, before, workplace / "out")
    target("remote", "verify", url)


@pytest.mark.slow
def test_two_pushes_at_once(workplace: Path, seed: int, weed: Weed) -> None:
    before = fill(workplace / "source", seed)
    url = f"{URL}/both-{seed}"
    source = make_store(workplace / "source", weed)
    with (
        source.running("push", "--all", url) as first,
        source.running("push", "--all", url) as second,
    ):
        assert (first.wait(timeout=100), second.wait(timeout=100)) == (0, 0)
    target = make_store(workplace / "target", weed)
    target("remote", "verify", url)
    target("pull", "--all", url)
    assert_same(target, before, workplace / "out")
