"""The metrics: their form and names, and that docs, dashboard and alerts speak of what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrain.app.observing import Observer, Overview
from regrain.errors import LockedError, NoSpaceError
from regrain.migrate.control import PAUSED
from regrain.migrate.pressure import IoPressure
from regrain.migrate.probe import Probe, SlowReaders
from regrain.migrate.room import Floors, Room
from regrain.migrate.tally import ERROR_KINDS
from regrain.model.histogram import BOUNDS, NO_TIMES
from regrain.settings import Settings
from regrain.store.root import StoreRoot
from regrain.web import metrics
from regrain.web.exposition import Family, render
from tests.conftest import remove
from tests.verbs import make_model

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "metrics.md"
DASHBOARD = ROOT / "contrib" / "grafana" / "regrain.json"
ALERTS = ROOT / "contrib" / "prometheus" / "regrain.rules.yml"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("metrics")
    yield make_model(place).path
    remove(place)


@pytest.fixture(scope="module")
def seen(path: Path) -> Overview:
    return Observer(str(path), Settings()).look()


@pytest.fixture(scope="module")
def found(seen: Overview) -> dict[str, Family]:
    families = list(metrics.families(seen))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


# form


def parsed(text: str) -> dict[str, Any]:
    """What the client library makes of it, by the name of the family."""
    parser = pytest.importorskip("prometheus_client.parser")
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def test_the_client_library_reads_the_same(found: dict[str, Family]) -> None:
    read = parsed(render(found.values()))
    assert read.keys() == {name.removesuffix("_total") for name in found}
    for name, family in found.items():
        theirs = read[name.removesuffix("_total")]
        assert (theirs.type, theirs.documentation) == (family.kind, family.help)
        ours = [(name + suffix, dict(labels), value) for suffix, labels, value in family.samples]
        assert [(s.name, s.labels, s.value) for s in theirs.samples] == ours


def test_any_text_in_labels_and_help() -> None:
    text = 'quote " slash \\ line\nend \\n é \udcff'
    family = Family("regrain_x", "gauge", 'line\nslash \\n "').add(0.1, a=text, b="")
    (sample,) = parsed(render([family]))["regrain_x"].samples
    assert sample.labels == {"a": text.replace("\udcff", "\\xff"), "b": ""}
    assert sample.value == 0.1
    assert parsed(render([family]))["regrain_x"].documentation == family.help


def test_histograms_add_up() -> None:
    times = NO_TIMES.plus([0.0001, 0.003, 0.003, 1000.0])
    read = parsed(render([Family("regrain_x_seconds", "histogram", "x").add_times(times)]))
    samples = read["regrain_x_seconds"].samples
    buckets = {s.labels["le"]: s.value for s in samples if s.name.endswith("_bucket")}
    assert [float(bound) for bound in buckets] == [*BOUNDS, float("inf")]
    assert (buckets["0.0001"], buckets["0.0025"], buckets["0.005"], buckets["60"]) == (1, 1, 3, 3)
    assert buckets["+Inf"] == 4
    rest = {s.name: s.value for s in samples if not s.labels}
    assert rest == {"regrain_x_seconds_sum": pytest.approx(1000.0061), "regrain_x_seconds_count": 4}


def test_what_is_not_known_is_left_out(seen: Overview, found: dict[str, Family]) -> None:
    assert seen.figures["rate_bytes_per_second"] is None
    for name in ("rate_bytes_per_second", "remaining_seconds", "foreground_seconds"):
        assert found[f"regrain_{name}"].samples == []
    unreadable = list(metrics.families(None))
    assert [family.name for family in unreadable] == [
        "regrain_build_info",
        "regrain_store_readable",
    ]
    assert unreadable[1].samples == [("", {}, False)]
    assert render(unreadable).endswith("regrain_store_readable 0\n")


# names, by the rules of Prometheus


UNITS = re.compile(r"_(milli|micro|nano|kilo|mega|giga|kibi|mebi|gibi)?(seconds|bytes)(_|$)")
SHORT = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "h", "d", "min_", "hours", "percent"}
RESERVED = ("_count", "_sum", "_bucket", "_total", "_created", "_info")


def test_names_follow_the_rules(found: dict[str, Family]) -> None:
    for name, family in found.items():
        assert re.fullmatch(r"regrain(_[a-z]+)+", name), name
        assert family.help.endswith("."), name
        assert not SHORT & set(name.split("_")), name
        unit = UNITS.search(name)
        assert unit is None or unit[1] is None, name
        assert family.kind in {"gauge", "counter", "histogram"}, name
        assert (family.kind == "counter") == name.endswith("_total"), name
        if family.kind != "counter" and name != "regrain_build_info":
            assert not name.endswith(RESERVED), name
        if family.kind == "histogram":
            assert name.endswith("_seconds"), name
        for _, labels, _ in family.samples:
            for label in labels:
                assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label), name
                assert label != "le" or family.kind == "histogram"


def test_one_state_holds(found: dict[str, Family]) -> None:
    for name in ("phase", "health"):
        assert sum(value for _, _, value in found[f"regrain_{name}"].samples) == 1
    assert sum(value for _, _, value in found["regrain_throttled_by"].samples) == 0
    kinds = [labels["kind"] for _, labels, _ in found["regrain_errors_total"].samples]
    assert kinds == [*ERROR_KINDS]


# what holds a run back


def test_what_holds_a_run_back_is_told_by_its_kind(path: Path, workplace: Path) -> None:
    pressure = workplace / "pressure"
    pressure.write_text("some avg10=50.00 avg60=0.00 avg300=0.00 total=0\n")
    root = StoreRoot(str(path))
    full = Room(root.fd, Floors(1 << 62, 1 << 62), 60)
    stopped = Room(root.fd, Floors(0, 0), 60)
    stopped.failed(NoSpaceError("the disk is full"))
    busy = Room(root.fd, Floors(0, 0), 60)
    busy.failed(LockedError("the ledger is busy"))
    with Probe(root, lambda _, __: 0.02) as probe:
        slow = SlowReaders(probe, 2.0)
        assert probe.windows is not None
        for _ in range(9):
            probe.windows.take(1.0)
        demands = {
            "io_pressure": IoPressure(10, str(pressure)).demand(),
            "latency": slow.demand(),
            "ledger": busy.demand(),
            "space": full.demand(),
        }
    for cause, demand in demands.items():
        assert demand is not None, cause
        assert metrics._cause(demand.reason) == cause, demand
    unreadable = IoPressure(10, str(workplace / "none")).demand()
    assert unreadable is not None
    assert metrics._cause(unreadable.reason) == "io_pressure"
    no_space = stopped.demand()
    assert no_space is not None
    assert metrics._cause(no_space.reason) == "space"
    assert metrics._cause(PAUSED) == "paused"
    assert metrics._cause("no more than 1 MiB/s are read (max_read)") == "rate"
    assert metrics._cause("no more than 9 files/s are read (max_files)") == "rate"
    assert metrics._cause("2 s between batches (pause_ms)") == "rate"
    assert metrics._cause("something new") == "other"


# what is written of them


def documented() -> dict[str, str]:
    """The metrics in the tables of the docs, each with its kind."""
    rows = re.findall(r"^\| `(regrain_\w+)`[^|]*\| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_the_docs_list_every_metric(found: dict[str, Family]) -> None:
    assert documented() == {name: family.kind for name, family in found.items()}


def test_the_docs_list_every_label(found: dict[str, Family]) -> None:
    text = DOCS.read_text()
    for family in found.values():
        for _, labels, _ in family.samples:
            for label, value in labels.items():
                if label not in {"le", "version"}:
                    assert f"`{value}`" in text, (family.name, label, value)


def asked(expression: str) -> Iterator[tuple[str, str]]:
    """Each metric that an expression asks for, with what stands in its braces."""
    yield from re.findall(r"\b(regrain_\w+)(?:\{([^}]*)\})?", expression)


def family_of(name: str, found: dict[str, Family]) -> Family:
    """The metric that a name in an expression belongs to."""
    return found.get(name) or found[re.sub(r"_(bucket|sum|count)$", "", name)]


def check(expression: str, found: dict[str, Family]) -> None:
    """An expression asks for metrics and values of labels that there are."""
    names = list(asked(expression))
    assert names, expression
    for name, braces in names:
        family = family_of(name, found)
        assert (family.kind == "histogram") == (name != family.name), expression
        for label, values in re.findall(r"(\w+)=~?\"([^\"]*)\"", braces):
            if label != "instance":  # which Prometheus adds
                there = {labels[label] for _, labels, _ in family.samples}
                assert set(values.split("|")) <= there, expression


def test_the_dashboard_shows_what_there_is(found: dict[str, Family]) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    shown = ""
    for panel in panels:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            check(target["expr"], found)
            shown += target["expr"]
            legends = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            (name, _), *_ = asked(target["expr"])
            labels = {label for _, known, _ in family_of(name, found).samples for label in known}
            assert set(legends) <= labels, target
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
    for histogram in (name for name, family in found.items() if family.kind == "histogram"):
        assert f"{histogram}_bucket" in shown


def rules() -> list[tuple[str, dict[str, str]]]:
    """Each alert with its lines, by their key: enough of YAML for this file."""
    blocks = re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.MULTILINE)[1:]
    found = []
    for block in blocks:
        name, _, rest = block.partition("\n")
        pairs = re.findall(r"^ +(\w+): (.+)$", rest, re.MULTILINE)
        found.append((name, dict(pairs)))
    return found


def test_the_alerts_ask_for_what_there_is(found: dict[str, Family]) -> None:
    names = [name for name, _ in rules()]
    assert len(names) == len(set(names)) == ALERTS.read_text().count("alert:")
    for name, rule in rules():
        assert re.fullmatch(r"Regrain[A-Z]\w+", name)
        assert {"expr", "severity", "summary", "description"} <= rule.keys(), name
        assert rule["severity"] in {"critical", "warning", "info"}, name
        check(rule["expr"], found)
        assert f"`{name}`" in DOCS.read_text(), name


def test_the_commands_they_advise_exist() -> None:
    from regrain.cli import VERBS

    text = ALERTS.read_text() + DASHBOARD.read_text()
    advised = set(re.findall(r"`regrain (\w+)", text))
    assert advised
    assert advised <= VERBS.keys()
