"""The page's part on fine-tuned tasks: what its table says, and drawings of metrics and sweeps.

Legend: P points of a sweep.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mobilebert_jax.report import plots, task_summary
from mobilebert_jax.report.task_summary import Finetuned, count, percent

MOST_POINTS = 24
"""Points of a sweep that one drawing holds: the best ones are drawn."""
_SHORT = {"batch_size": "batch"}


def page_parts(finetuned: Finetuned) -> dict[str, Any]:
    """Returns what the template shows of `results["finetune"]`; call it within drawing.STYLE."""
    names = task_summary.names_of(finetuned)
    return {
        "headline": headline(finetuned),
        "origins": _origins(finetuned),
        "seeds": _seeds(finetuned),
        "numbers": _numbers(finetuned),
        "networks": names,
        "rows": [_task(task) for task in finetuned["tasks"]],
        "averages": [
            {
                "network": name,
                "value": percent(finetuned["averages"][name]["value"]),
                "note": task_summary.average_note(finetuned["averages"][name]),
                **_beside(task_summary.average_figure(finetuned["averages"][name])),
            }
            for name in task_summary.NETWORKS
            if name in finetuned["averages"]
        ],
        "footnotes": task_summary.notes_used(finetuned),
        "overview": _overview(finetuned) if len(names) > 1 else [],
        "compared": any(
            figure["published"]
            for task in finetuned["tasks"]
            for network in task["networks"]
            for figure in network["metrics"]
        ),
        "sweeps": _sweeps(finetuned, several=len(names) > 1),
    }


# ---- words -------------------------------------------------------------------------------------


def headline(finetuned: Finetuned) -> str:
    """Returns the title of a page that shows nothing but fine-tuning."""
    origins = _origins(finetuned)
    found = {origin["network"]: origin["pretrained"] for origin in origins if origin["pretrained"]}
    chosen = found.get("student") or next(iter(found.values()), "")
    # The folder of the run and the stage's within it tell networks apart; all else is a long path.
    name = "/".join(chosen.rstrip("/").split("/")[-2:]) or "an untrained network"
    titles = [task["title"] for task in finetuned["tasks"]]
    return f"Fine-tuning of {name} on " + (
        titles[0] if len(titles) == 1 else f"{len(titles)} tasks"
    )


def _origins(finetuned: Finetuned) -> list[dict[str, str]]:
    """Returns of each network the folder of its parameters."""
    found = {}
    for task in finetuned["tasks"]:
        for network in task["networks"]:
            found[network["network"]] = {
                "network": network["network"],
                "pretrained": network["pretrained"],
            }
    return [found[name] for name in task_summary.NETWORKS if name in found]


def _seeds(finetuned: Finetuned) -> str:
    """Returns over how many seeds the metrics are medians."""
    counts = sorted(
        {len(network["seeds"]) for task in finetuned["tasks"] for network in task["networks"]}
    )
    if len(counts) < 2:
        return count(counts[0], "seed") if counts else ""
    return f"{counts[0]} to {counts[-1]} seeds"


def _numbers(finetuned: Finetuned) -> list[dict[str, str]]:
    """Returns at most three metrics for the top of a page, the student's where there are some."""
    names = task_summary.names_of(finetuned)
    name = "student" if "student" in names else names[0] if names else ""
    found = []
    if average := finetuned["averages"].get(name):
        note = f"GLUE average of the {name}; {task_summary.average_note(average)}"
        found.append({"network": name, "value": percent(average["value"]), "note": note})
    for task in finetuned["tasks"]:
        for network in task["networks"]:
            if network["network"] == name:
                main = _main(network)
                note = f"{task['title']}, {main['name']} of the {name}"
                if len(network["seeds"]) > 1:
                    ends = f"{percent(main['minimum'])} to {percent(main['maximum'])}"
                    note += f"; {ends} over {len(network['seeds'])} seeds"
                found.append({"network": name, "value": percent(main["median"]), "note": note})
    return found[:3]


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Returns one task's rows of the table."""
    counts = ", ".join(f"{number:,} {split}" for split, number in task["rows"].items())
    notes = [f"{counts} rows"] if counts else []
    notes += [f"{number:,} {what}" for what, number in task["notes"].items() if number]
    notes += [
        f"{network['network']}: output layer {network['output_layer']}"
        for network in task_summary.networks_of(task)
        if network.get("output_layer")
    ]
    return {
        "title": task["title"],
        "notes": notes,
        "networks": [_network(network) for network in task_summary.networks_of(task)],
    }


def _network(network: Mapping[str, Any]) -> dict[str, Any]:
    metrics = [
        {
            "name": figure["name"],
            "main": figure["main"],
            "median": percent(figure["median"]),
            "range": task_summary.spread(figure, network["seeds"]),
            **_beside(figure),
        }
        for figure in task_summary.metrics_of(network)
    ]
    return {
        "network": network["network"],
        "settings": [
            *task_summary.settings(network["point"]),
            count(len(network["seeds"]), "seed"),
        ],
        "digest": network["digest"][:8],
        "folder": network["folder"],
        "metrics": metrics,
    }


def _beside(figure: task_summary.Figure) -> dict[str, Any]:
    """Returns what the paper says, and the difference to it."""
    found = task_summary.difference(figure)
    return {
        "published": [
            {
                "value": percent(entry["value"]),
                "split": entry["split"],
                "mark": "" if entry["verified"] else task_summary.UNVERIFIED,
            }
            for entry in task_summary.published(figure)
        ],
        "difference": found[0] if found else "",
        "mark": task_summary.OTHER_SPLIT if found and found[1] else "",
    }


def _main(network: Mapping[str, Any]) -> task_summary.Figure:
    return task_summary.metrics_of(network)[0]


# ---- drawings ----------------------------------------------------------------------------------


def _overview(finetuned: Finetuned) -> list[dict[str, Any]]:
    """The main figure of every network on every task, with its range over the seeds."""
    tasks, names = finetuned["tasks"], task_summary.names_of(finetuned)
    titles = [task["title"] for task in tasks]
    apart = 0.62 / len(names)
    panels = []
    for kind, width in (("wide", 800), ("narrow", 350)):
        height = 66 + len(tasks) * (14 + 12 * len(names))
        y = "median, smallest and largest over the seeds"
        figure, axes = plots.panel(width, height, left=_margin(titles), x="%", y=y)
        for row, task in enumerate(tasks):
            for network in task["networks"]:
                main = _main(network)
                name = network["network"]
                at = row + apart * (names.index(name) - (len(names) - 1) / 2)
                ends = [main["minimum"], main["maximum"]]
                axes.plot(ends, [at, at], color=plots.COLOUR[name], linewidth=2, alpha=0.5)
                axes.plot([main["median"]], [at], "o", color=plots.COLOUR[name], markersize=7)
                for entry in task_summary.published(main)[:1]:
                    axes.plot([entry["value"]], [at], "|", color=plots.COLOUR["ink"],
                              markersize=13, markeredgewidth=1.8)  # fmt: skip
        _rows(axes, titles)
        for row in range(1, len(tasks)):
            axes.axhline(row - 0.5, color=plots.COLOUR["rule"], linewidth=0.8)
        title = "Main figure of each network by task"
        svg = plots.svg(figure, f"tasks-{kind}", title)
        panels.append({"kind": kind, "svg": svg, "title": title})
    return panels


def _sweeps(finetuned: Finetuned, *, several: bool) -> list[list[dict[str, Any]]]:
    """Drawings of the sweeps of more than one point, in groups that stand in one row."""
    groups: list[list[dict[str, Any]]] = []
    for task in finetuned["tasks"]:
        swept = [part for part in task_summary.networks_of(task) if len(part["points"]) > 1]
        # Scales of one length show whose metrics vary more; on a common scale no row could be read
        # where the networks lie far apart.
        length = max((np.ptp(_finite(part)) for part in swept if len(_finite(part))), default=0.0)
        group = []
        for part in swept:
            title = task["title"] + (f", {part['network']}" if several else "")
            prefix = f"sweep-{task['task']}-{part['network']}"
            svg, note = _sweep(part, 1.14 * length or 1.0, prefix, f"Sweep of {title}")
            group.append({"title": title, "svg": svg, "note": note})
        if several or not groups:
            groups.append(group)
        else:
            groups[-1] += group
    return [group for group in groups if group]


def _sweep(
    network: Mapping[str, Any], length: float, prefix: str, title: str
) -> tuple[Markup, str]:
    """Draws one dot a seed in one row a point on a scale of `length`; adds what the rows lack."""
    every = network["points"]
    points = _best(every, network["point"])
    names = list(network["point"])
    varied = [name for name in names if len({str(entry["point"][name]) for entry in every}) > 1]
    same = {name: value for name, value in network["point"].items() if name not in varied}
    labels = [
        " · ".join(task_summary.setting(entry["point"][name]) for name in varied)
        for entry in points
    ]
    mains = [figure["name"] for figure in network["metrics"] if figure["main"]]
    figure, axes = plots.panel(
        260, 70 + 19 * len(points), left=_margin(labels),
        x=f"{mains[0]} (%)" if len(mains) == 1 else "main figure (%)",
        y=" · ".join(_SHORT.get(name, name.replace("_", " ")) for name in varied),
    )  # fmt: skip
    colour = plots.COLOUR[network["network"]]
    for row, entry in enumerate(points):
        if entry["point"] == network["point"]:
            axes.axhspan(row - 0.5, row + 0.5, color=plots.COLOUR["shade"], linewidth=0, zorder=0)
        if len(entry["main"]) > 1:
            middle = statistics.median(entry["main"])
            axes.plot([middle], [row], "|", color=colour, markersize=12, markeredgewidth=2)
        axes.plot(entry["main"], [row] * len(entry["main"]), "o", color=colour, markersize=5,
                  markeredgewidth=0, alpha=0.6)  # fmt: skip
    values = _finite(network)
    if len(values):
        middle = (values.min() + values.max()) / 2
        axes.set_xlim(middle - length / 2, middle + length / 2)
    _rows(axes, labels)
    notes = [f"the best {len(points)} of {len(every)} points"] if len(every) > len(points) else []
    notes += ["all with " + ", ".join(task_summary.settings(same))] if same else []
    return plots.svg(figure, prefix, title), "; ".join(notes)


def _finite(network: Mapping[str, Any]) -> np.ndarray:
    """Returns the finite main metrics of all points and seeds in one row."""
    values = np.array([value for entry in network["points"] for value in entry["main"]], float)
    return values[np.isfinite(values)]


def _best(every: Sequence[Mapping[str, Any]], chosen: Any) -> list[Mapping[str, Any]]:
    """Returns the MOST_POINTS points of the highest medians, the chosen among them, in order."""
    ranked = sorted(
        range(len(every)),
        key=lambda index: (every[index]["point"] == chosen, _rank(every[index]["main"])),
        reverse=True,
    )
    return [every[index] for index in sorted(ranked[:MOST_POINTS])]


def _rank(values: Sequence[float]) -> float:
    """Returns the median, or what is below all others where that is undefined."""
    middle = statistics.median(values) if values else np.nan
    return middle if np.isfinite(middle) else -np.inf


def _margin(labels: Sequence[str]) -> int:
    """Returns the width that the longest of the labels takes beside the axes, in CSS pixels."""
    return 24 + 6 * max(map(len, labels))


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Makes the y axis one of named rows, the first on top, and the grid that of the x axis."""
    # A dollar sign in a name would begin a formula.
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(4 if axes.bbox.width < 500 else 8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
