"""Tables in Markdown, from the document of results alone."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.deeds import STORE, VERIFY
from bench.peers import BY_NAME
from bench.results import Results, ratios, spread, values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.results import Round

Steps = dict[str, dict[str, Any]]
BASELINES = {"store": STORE, "verify": VERIFY}


def write(results: Results) -> Path:
    """Write all tables into one file.

    Returns:
        The file.
    """
    path = results.directory / "table.md"
    path.write_text(markdown(results.document), encoding="utf-8")
    return path


def markdown(document: dict[str, Any]) -> str:
    """Write all that was measured as Markdown."""
    machine = document["machine"]
    memory = machine["memory_bytes"] / (1 << 30)
    lines = [
        "# Benchmarks",
        "",
        f"{machine['cpus']} cores ({machine['cpu']}), {memory:.0f} GiB.",
        f"Linux {machine['kernel']}, Python {machine['python']}.",
        f"Load before: {machine['load_before']:.1f}.",
        "",
        "Ratios are to regrain in the same round: the median, and in brackets the smallest and",
        "the largest. Below 1 the other is quicker, or needs less. Absolute figures are medians,",
        "for orientation only.",
    ]
    for name, part in document["parts"].items():
        lines += ["", f"## Peers, {name}", "", *_part(part)]
    if document["micro"]:
        lines += ["", "## Single calls", "", *_micro(document["micro"])]
    if document["scaling"]:
        lines += ["", "## Scaling", "", *_scaling(document["scaling"])]
    lines += ["", "## Who does what", "", *_tools(document["tools"])]
    if document["problems"] or not document["complete"]:
        ended = [] if document["complete"] else ["The run did not come to its end."]
        lines += ["", "## Left out", "", *(f"- {line}" for line in ended + document["problems"])]
    return "\n".join(lines) + "\n"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> list[str]:
    marks = ["---", *["---" if words else "---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)]


def _part(part: dict[str, Any]) -> list[str]:
    corpus, rounds = part["corpus"], part["rounds"]
    whole = (
        f"{corpus['name']} corpus: {corpus['packages']} packages, {corpus['files']:,} files, "
        f"{corpus['contents']:,} contents, {corpus['allocated'] / 1e9:.2f} GB allocated in "
        f"{corpus['inodes']:,} inodes; {sum(STORE in found for found in rounds)} rounds"
    )
    head = [
        "step",
        *("wall s", "÷ regrain", "CPU s", "÷ regrain", "peak MB", "÷ regrain", "largest MB"),
        *("on disk MB", "inodes"),
    ]
    own = any("filesystem_used" in step for found in rounds for step in found.values())
    if own:
        head.append("space used MB")
    names = list(dict.fromkeys(name for found in rounds for name in found))
    return [whole, "", *_grid(head, [_row(rounds, name, own=own) for name in names])]


def _row(rounds: list[Round], name: str, *, own: bool) -> list[str]:
    work = next(found[name]["work"] for found in rounds if name in found)
    baseline = BASELINES.get(work, STORE)

    def median(key: str, unit: float, digits: int) -> str:
        found = values(rounds, name, key)
        return f"{statistics.median(found) / unit:,.{digits}f}" if found else ""

    def ratio(key: str) -> str:
        found = ratios(rounds, name, baseline, key)
        return "" if name == baseline or not found else spread(found)

    cells = [
        f"**{name}**" if name == baseline else name,
        median("wall", 1, 2),
        ratio("wall"),
        median("cpu", 1, 2),
        ratio("cpu"),
        median("peak_tree", 1e6, 0),
        ratio("peak_tree"),
        median("peak_process", 1e6, 0),
        median("allocated", 1e6, 1),
        median("inodes", 1, 0),
    ]
    return [*cells, median("filesystem_used", 1e6, 1)] if own else cells


def _micro(rows: list[dict[str, Any]]) -> list[str]:
    head = ["call", "regrain", "beside it", "", "÷ (ratio of the pair)", "pairs"]
    return _grid(
        head,
        [
            [
                row["name"],
                f"{statistics.median(row['ours']):.1f} {row['unit']}",
                row["beside"],
                f"{statistics.median(row['other']):.1f} {row['unit']}",
                spread([a / b for a, b in zip(row["ours"], row["other"], strict=True)]),
                str(len(row["ours"])),
            ]
            for row in rows
        ],
    )


def _scaling(rows: list[dict[str, Any]]) -> list[str]:
    head = [
        "store",
        *("files", "packages", "jobs", "init µs/file", "migrate µs/file", "÷ b3sum", "CPU µs/file"),
        *("peak MB", "largest MB", "verify µs/file", "verify peak MB", "ledger B/file"),
        *("status ms",),
    ]
    body = []
    for row in rows:
        files, steps = row["files"], row["steps"]

        def each(step: str, key: str, files: int = files, steps: Steps = steps) -> str:
            return f"{steps[step][key] / files * 1e6:,.1f}" if step in steps else ""

        def peak(step: str, key: str, steps: Steps = steps) -> str:
            return f"{steps[step][key] / 1e6:,.0f}" if step in steps else ""

        migrate, hashing = steps.get("migrate"), steps.get("b3sum")
        body.append(
            [
                row["name"],
                f"{files:,}",
                f"{row['packages']:,}",
                str(row["jobs"] or "default"),
                each("init", "wall"),
                each("migrate", "wall"),
                f"{migrate['wall'] / hashing['wall']:.2f}" if migrate and hashing else "",
                each("migrate", "cpu"),
                peak("migrate", "peak_tree"),
                peak("migrate", "peak_process"),
                each("verify", "wall"),
                peak("verify", "peak_tree"),
                f"{row['ledger'] / files:,.0f}" if "ledger" in row else "",
                f"{steps['status']['wall'] * 1e3:,.0f}" if "status" in steps else "",
            ]
        )
    return _grid(head, body)


def _tools(tools: dict[str, str]) -> list[str]:
    return _grid(
        ["peer", "version", "does"],
        [[name, version, BY_NAME[name].does] for name, version in tools.items()],
        words=True,
    )


if __name__ == "__main__":
    sys.stdout.write(markdown(Results.load(Path(sys.argv[1])).document))
