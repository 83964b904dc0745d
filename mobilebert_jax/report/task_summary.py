"""What fine-tuning on tasks says: its metrics beside the paper's, and their table on the console.

Every figure is in per cent, and so is what is made of two of them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

Finetuned = Mapping[str, Any]
Figure = Mapping[str, Any]

NETWORKS = ("teacher", "student", "control", "baseline", "untrained")
"""In the order in which every table and figure shows them."""
UNVERIFIED, OTHER_SPLIT = "‡", "†"
"""What marks a published figure that no publication confirmed, and a difference of two splits."""
UNVERIFIED_NOTE = f"{UNVERIFIED} not verified against the publication"
OTHER_SPLIT_NOTE = f"{OTHER_SPLIT} our dev figure minus a test figure of the paper"

_SETTINGS = {"batch_size": "batch {}", "learning_rate": "learning rate {}", "epochs": "{} epochs"}


def networks_of(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the networks of one task in the order of NETWORKS."""
    return sorted(part["networks"], key=lambda network: NETWORKS.index(network["network"]))


def names_of(finetuned: Finetuned) -> list[str]:
    """Returns the names of all networks that were fine-tuned on any task, in order."""
    found = {network["network"] for task in finetuned["tasks"] for network in task["networks"]}
    return [name for name in NETWORKS if name in found]


def metrics_of(network: Mapping[str, Any]) -> list[Figure]:
    """Returns the metrics of one network on one task, main ones first."""
    return sorted(network["metrics"], key=lambda figure: not figure["main"])


def published(figure: Figure) -> list[Mapping[str, Any]]:
    """Returns the paper's metrics, those of the dev set first."""
    return sorted(figure["published"], key=lambda entry: entry["split"] != "dev")


def percent(value: float) -> str:
    """Returns a figure with one decimal."""
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def spread(figure: Figure, seeds: Sequence[int]) -> str:
    """Returns the smallest and the largest figure of several seeds; of one seed nothing."""
    if len(seeds) < 2:
        return ""
    return f"{percent(figure['minimum'])}\N{EN DASH}{percent(figure['maximum'])}"


def difference(figure: Figure) -> tuple[str, bool] | None:
    """Returns ours minus the paper's, signed, and whether that compares dev with another split.

    The paper's dev figure is taken where there is one; None where there is no figure at all.
    """
    entries = published(figure)
    if not entries:
        return None
    value = round(figure["median"] - entries[0]["value"], 1)
    if not math.isfinite(value):
        return percent(value), entries[0]["split"] != "dev"
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    return sign + percent(abs(value)), entries[0]["split"] != "dev"


def count(number: int, noun: str) -> str:
    """Returns the count with the noun, in the plural where it has to be."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def setting(value: Any) -> str:
    """Returns one setting in few characters: 0.0001 gives 1e-4."""
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.5e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def settings(point: Mapping[str, Any]) -> list[str]:
    """Returns the settings of one point in words: batch 32, learning rate 5e-5, 4 epochs."""
    return [
        _SETTINGS.get(name, name.replace("_", " ") + " {}").format(setting(value))
        for name, value in point.items()
    ]


def average_note(average: Mapping[str, Any]) -> str:
    """Returns over what a GLUE average is, and whether it is the official one."""
    if average["official"]:
        return "official, all 9 tasks"
    return f"not official, {average['tasks']} of 9 tasks"


def average_figure(average: Mapping[str, Any]) -> Figure:
    """Returns the average as a figure, beside the paper's where it is the official one."""
    return {"median": average["value"], "published": average["published"]}


def notes_used(finetuned: Finetuned) -> list[str]:
    """Returns the footnotes that the marks in a table of these tasks need."""
    metrics: list[Figure] = [average_figure(a) for a in finetuned["averages"].values()]
    metrics += [
        figure
        for task in finetuned["tasks"]
        for network in task["networks"]
        for figure in network["metrics"]
    ]
    notes = []
    if any(not entry["verified"] for figure in metrics for entry in figure["published"]):
        notes.append(UNVERIFIED_NOTE)
    if any((found := difference(figure)) and found[1] for figure in metrics):
        notes.append(OTHER_SPLIT_NOTE)
    return notes


def tasks_table(finetuned: Finetuned) -> Table:
    """Returns the table of the console; with 80 columns no number in it is cut."""
    names = names_of(finetuned)
    several = len(names) > 1
    table = Table(
        title="tasks, dev sets"
        if several
        else f"tasks, dev sets: {names[0]}"
        if names
        else "tasks",
        caption="\n".join(notes_used(finetuned)) or None,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("task", overflow="fold")
    if several:
        table.add_column("network", no_wrap=True)
    table.add_column("figure", overflow="fold")
    for name in ("median\n" + escape("[min, max]"), "paper", "diff."):
        table.add_column(name, justify="right", no_wrap=True)
    for task in finetuned["tasks"]:
        title = task["title"]
        for network in networks_of(task):
            role = network["network"]
            for figure in metrics_of(network):
                cells = [escape(title), *([role] if several else []), escape(figure["name"])]
                style = "bold" if figure["main"] and role == "student" else None
                table.add_row(*cells, *_figure_cells(figure, network["seeds"]), style=style)
                title, role = "", ""
        table.add_section()
    title = "GLUE average"
    for name in NETWORKS:
        if average := finetuned["averages"].get(name):
            cells = [title, *([name] if several else []), average_note(average)]
            table.add_row(*cells, percent(average["value"]), *_beside(average_figure(average)))
            title = ""
    return table


def _figure_cells(figure: Figure, seeds: Sequence[int]) -> tuple[str | Text, ...]:
    median = percent(figure["median"])
    # As markup the brackets would be taken for a tag and vanish.
    ours = Text(f"{median} [{percent(figure['minimum'])}, {percent(figure['maximum'])}]")
    if not spread(figure, seeds):
        ours = Text(f"{median} (1 seed)")
    return ours, *_beside(figure)


def _beside(figure: Figure) -> tuple[str, str]:
    """Returns the paper's figure and the difference to it, both empty where there is none."""
    entries, found = published(figure), difference(figure)
    if not entries or not found:
        return "", ""
    mark = "" if entries[0]["verified"] else UNVERIFIED
    paper = f"{percent(entries[0]['value'])} {entries[0]['split']}{mark}"
    return paper, found[0] + (OTHER_SPLIT if found[1] else "")
