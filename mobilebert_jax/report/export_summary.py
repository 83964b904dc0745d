"""What the exported files are: sizes, and what they were found to compute, for console and page."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

Exported = Mapping[str, Any]


class Row(NamedTuple):
    """One file in words."""

    network: str
    file: str
    megabytes: str
    difference: str
    """From our outputs, as a share of the largest; empty where the parameters are the same."""
    scores: str
    """On the dev set of the network's task, and their change, in per cent."""


def rows_of(exported: Exported) -> list[Row]:
    """Returns a row for each file of each network."""
    return [
        Row(
            network["name"],
            file["file"],
            f"{file['bytes'] / 1e6:.1f}",
            _difference(file),
            _scores(file.get("metrics", {}), network["metrics"]),
        )
        for network in exported["networks"]
        for file in network["files"]
    ]


def _difference(file: Mapping[str, Any]) -> str:
    found = [difference["max_rel"] for difference in file.get("differences", {}).values()]
    return f"{max(found):.0e}" if found else ""


def _scores(metrics: Mapping[str, float], trained: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {value:.1f} ({value - trained[name]:+.1f})" for name, value in metrics.items()
    )


def export_table(exported: Exported) -> Table:
    """Returns the table of the console."""
    table = Table(title="exported files")
    for name in ("network", "file"):
        table.add_column(name, overflow="fold")
    for name in ("MB", "differs by"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("dev (change)", overflow="fold")
    before = ""
    for row in rows_of(exported):
        name = "" if row.network == before else escape(row.network)
        table.add_row(name, *row[1:])
        before = row.network
    return table
