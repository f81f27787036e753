"""``push``, ``pull``, ``remote``: there and back over file://; damage and attacks there."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import zstandard
from blake3 import blake3

from tests.awkward import AWKWARD, add_awkward, add_ordinary
from tests.command import Regrain
from tests.compare import differences, snapshot
from tests.trees import LIVE, Abilities, LegacyPackage, Tree, describe

NO_SETTLING = {"REGRAIN_MIGRATION__SETTLE": "0"}


def make_package(path: Path, name: str, *files: bytes) -> Path:
    with Tree(path, Random(name)) as tree:
        describe(tree, name, "1.0")
        for number, content in enumerate(files):
            tree.file(LIVE + b"/bin/%d" % number, content, 0o755)
    return path


class Two:
    """A store with two packages that share a file, another without any, and a URL."""

    def __init__(self, place: Path, names: list[str]) -> None:
        self.here = Regrain(place / "here", NO_SETTLING)
        self.there = Regrain(place / "there", NO_SETTLING)
        self.directory = place / "remote"
        self.url = f"file://{self.directory}"
        self.names = names

    def object(self, content: bytes) -> Path:
        digest = blake3(content).hexdigest()
        return self.directory / "objects" / digest[:2] / f"{digest}.zst"

    def file_list(self, name: str) -> Path:
        return self.directory / "packages" / name / "files.json.zst"

    def pulled_nothing(self) -> bool:
        published = os.listdir(self.there.store / "packages")
        return not published and not os.listdir(self.there.store / "temp")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Two:
    place = tmp_path_factory.mktemp("two")
    made = Two(place, [])
    for one in (made.here, made.there):
        one.store.mkdir()
        one("init")
    for name in ("one", "two"):
        own = name.encode() * 500
        package = make_package(place / name, name, b"shared by both\n" * 99, own)
        made.names.append(made.here("add", package, "--json").document["package_hash"])
    return made


@pytest.fixture
def two(workplace: Path, template: Two) -> Two:
    """The same once more, made by copying: quicker than by commands."""
    for store in (template.here.store, template.there.store):
        subprocess.run(["cp", "-a", "--", store, workplace], check=True)
    return Two(workplace, template.names)


@pytest.mark.parametrize(
    "subjects",
    [("link-groups", "modes", "names"), pytest.param(tuple(AWKWARD), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_awkward_packages_of_both_layouts_come_back_identical(
    workplace: Path, seed: int, able: Abilities, subjects: tuple[str, ...]
) -> None:
    source = Regrain(workplace / "source", NO_SETTLING)
    source.store.mkdir()
    made: list[LegacyPackage] = [add_awkward(source.store, s, seed, able) for s in subjects]
    made.append(add_ordinary(source.store, "jq", "1.7", seed, digits=32))
    before = {package.hash: snapshot(package.path) for package in made}
    source("init")
    source("migrate", "--jobs", "1", "--limit", "2")
    url = f"file://{workplace}/remote"
    source("push", "--all", url)

    target = Regrain(workplace / "target", NO_SETTLING)
    target.store.mkdir()
    target("init")
    target("pull", "--all", url)
    for name, tree in before.items():
        place = workplace / f"out-{name}"
        target("checkout", name, place, "--mode", "exact")
        assert differences(tree, snapshot(place)) == []
    target("verify", "--level", "deep")


def test_each_object_goes_once_and_only_what_is_lacking_comes(two: Two) -> None:
    first = two.here("push", two.names[0], two.url, "--json").of_type("summary")[0]
    second = two.here("push", "--all", two.url, "--json").of_type("summary")[0]
    assert 1 < second["objects"] < first["objects"]  # what both share is there
    assert second["already_present"] == 1
    two.there("pull", two.names[0][:12], two.url)
    would = two.there("pull", two.names[1], two.url, "-n", "--json").document
    done = two.there("pull", two.names[1], two.url, "--json").of_type("summary")[0]
    assert would["objects"] == done["objects"] == second["objects"]
    again = two.there("pull", "--all", two.url, "--json").of_type("summary")[0]
    assert (again["already_present"], again["objects"]) == (2, 0)
    assert two.there("remote", "list", two.url).text.split() == sorted(two.names)


def harm_byte(two: Two) -> None:
    path = two.object(b"one" * 500)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def harm_length(two: Two) -> None:
    path = two.object(b"one" * 500)
    path.write_bytes(path.read_bytes()[:-3])


def harm_absence(two: Two) -> None:
    two.object(b"one" * 500).unlink()


def harm_swap(two: Two) -> None:
    two.object(b"one" * 500).write_bytes(two.object(b"two" * 500).read_bytes())


def harm_bomb(two: Two) -> None:
    packer = zstandard.ZstdCompressor(write_checksum=True)
    two.object(b"one" * 500).write_bytes(packer.compress(bytes(1 << 20)))


def harm_padding(two: Two) -> None:
    with two.object(b"one" * 500).open("ab") as opened:
        opened.truncate(64 << 20)


def harm_list_swap(two: Two) -> None:
    raw = two.file_list(two.names[1]).read_bytes()
    two.file_list(two.names[0]).write_bytes(raw)


def harm_list_cut(two: Two) -> None:
    path = two.file_list(two.names[0])
    path.write_bytes(path.read_bytes()[:-20])


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Two], None]:
    def harm(two: Two) -> None:
        path = two.file_list(two.names[0])
        raw = zstandard.ZstdDecompressor().decompress(path.read_bytes())
        changed = change(raw)
        assert changed != raw
        packed = zstandard.ZstdCompressor(write_checksum=True).compress(changed)
        path.write_bytes(packed)

    return harm


HARMS = {
    "byte": harm_byte,
    "length": harm_length,
    "absence": harm_absence,
    "swap": harm_swap,
    "bomb": harm_bomb,
    "padding": harm_padding,
    "list of another": harm_list_swap,
    "list cut": harm_list_cut,
    "list climbs": rewritten(lambda raw: raw.replace(b'"manifest.toml"', b'"../manifest.toml"')),
    "list with a size": rewritten(lambda raw: raw.replace(b'"size":1500', b'"size":1501')),
    "list with a digest": rewritten(lambda raw: raw.replace(b'"hash":"', b'"hash":"../', 1)),
    "list with a mode": rewritten(lambda raw: raw.replace(b'"0755"', b'"4777"')),
    "list of nothing": rewritten(lambda _: b""),
}


EVERYDAY = {"byte", "absence", "swap", "bomb", "list of another", "list climbs"}


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(harm, id=name, marks=[] if name in EVERYDAY else [pytest.mark.slow])
        for name, harm in HARMS.items()
    ],
)
def test_damage_there_is_found_never_published_and_mended(
    two: Two, harm: Callable[[Two], None]
) -> None:
    two.here("push", "--all", two.url)
    harm(two)
    failed = two.there("pull", two.names[0], two.url, code=4)
    assert two.url in failed.stderr
    assert two.pulled_nothing()
    found = two.there("remote", "verify", two.url, "--json", code=4).of_type("summary")[0]
    assert found["damaged"] == len(found["damages"]) > 0
    if two.here("push", two.names[0], two.url, "--again", code=None).code:
        two.file_list(two.names[0]).unlink()  # a whole list, of what could be another tree
        two.here("push", two.names[0], two.url)
    two.there("pull", "--all", two.url)
    assert sorted(os.listdir(two.there.store / "packages")) == sorted(two.names)


def test_an_object_torn_under_its_name_is_not_relied_upon(two: Two) -> None:
    """As a power cut leaves one in a directory; its package was not listed yet."""
    two.here("push", two.names[0], two.url)
    two.file_list(two.names[0]).unlink()
    harm_length(two)
    assert two.here("push", two.names[0], two.url, "--json").of_type("summary")[0]["objects"] == 1
    two.here("remote", "verify", two.url)


def test_another_tree_of_a_listed_name_is_refused_on_both_ways(two: Two, workplace: Path) -> None:
    two.here("push", two.names[0], two.url)
    other = make_package(workplace / "other", "other", b"another")
    two.there("add", other, "--hash", two.names[0])
    for words in (["push"], ["push", "--again"], ["pull"]):
        refused = two.there(*words, two.names[0], two.url, code=1)
        assert refused.stderr.count("another tree has this name") == 1
    two.here("remote", "verify", two.url)


def test_gc_there_takes_what_nobody_needs_after_its_grace(two: Two) -> None:
    two.here("push", two.names[1], two.url)
    own = two.here("push", two.names[0], two.url, "--json").of_type("summary")[0]["objects"]
    two.file_list(two.names[0]).unlink()
    early = two.here("remote", "gc", two.url, "--execute", "--json").document
    assert (early["objects"], early["waiting_objects"]) == (0, own)
    assert early["kept_objects"] > 0
    shown = two.here("remote", "gc", two.url, "--grace", "0", "--json").document
    assert (shown["objects"], shown["executed"]) == (own, False)
    taken = two.here("remote", "gc", two.url, "--grace", "0", "--execute", "--json").document
    assert taken["objects"] == own
    assert not two.object(b"one" * 500).exists()
    two.there("remote", "verify", two.url)
    two.there("pull", two.names[1], two.url)


def test_gc_and_push_keep_apart_until_a_lease_runs_out(two: Two) -> None:
    two.here("push", two.names[0], two.url)
    leases = two.directory / "leases"
    leases.mkdir(exist_ok=True)
    for kind, refused in (("push", ["gc"]), ("gc", ["gc", "push"])):
        lease = leases / f"{kind}-{secrets.token_hex(16)}"
        lease.write_text("{}")
        commands = {
            "gc": ["remote", "gc", two.url, "--execute"],
            "push": ["push", "--all", two.url],
        }
        for name in refused:
            assert f"a {kind} is under way" in two.here(*commands[name], code=11).stderr
        old = time.time() - 3600
        os.utime(lease, (old, old))
        for command in commands.values():
            two.here(*command)
        lease.unlink(missing_ok=True)
    assert os.listdir(leases) == []


def test_gc_is_refused_where_a_list_cannot_be_read(two: Two) -> None:
    two.here("push", "--all", two.url)
    harm_list_cut(two)
    two.here("remote", "gc", two.url, "--execute", "--grace", "0", code=5)
    assert two.object(b"one" * 500).exists()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("s3://me:hunter2hunter2@bucket/x", 2),
        ("s3://bucket/x?X-Amz-Signature=hunter2hunter2", 2),
        ("ftp://host/x", 2),
        ("not a url", 2),
        ("file://relative", 2),
        ("file:///nowhere/at/all", 1),
    ],
)
def test_urls_that_cannot_be(two: Two, url: str, code: int) -> None:
    for words in (["pull", two.names[0], url], ["remote", "verify", url]):
        assert "hunter2" not in str(two.here(*words, code=code, env={}).stderr)


def test_a_url_without_packages_and_one_of_a_later_format(two: Two) -> None:
    two.directory.mkdir()
    two.there("pull", "--all", two.url, code=10)
    (two.directory / "regrain.json").write_text(json.dumps({"format": 99}))
    two.there("pull", "--all", two.url, code=2)
    two.here("push", "--all", two.url, code=2)


def test_dry_runs_write_nothing(two: Two) -> None:
    two.directory.mkdir()
    two.here("push", "--all", two.url, "-n")
    assert os.listdir(two.directory) == []


def test_an_endpoint_that_is_away_ends_soon_and_tells_no_secret(two: Two) -> None:
    env = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "the-key-of-nobody",
        "AWS_SECRET_ACCESS_KEY": "hunter2hunter2",
        "AWS_REGION": "us-east-1",
    }
    gone = two.here("push", "--all", "s3://bucket/x", "--json", code=1, env=env, timeout=60)
    assert "does not answer" in gone.stderr
    assert gone.of_type("exit_error")[0]["advice"]
    for secret in ("hunter2", "the-key-of-nobody"):
        assert secret not in gone.stderr + gone.text
