"""The page of a comparison of variants: one html file that opens offline, and its metrics as JSON.

Legend: S seeds, N points of a curve.
"""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mobilebert_jax import storage
from mobilebert_jax.ablations import table
from mobilebert_jax.report import plots
from mobilebert_jax.training.metric_log import json_safe

Outcome = Mapping[str, Any]

_COLOURS = ("student", "teacher", "feature_map", "attention", "control", "variance", "untrained")
_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_ROW = 30
"""Height of a row of the dot plot in pixels."""


def write(outcome: Outcome, path: Path) -> None:
    """Writes the page to `path`, and what it shows to a file beside it that ends in `.json`."""
    # Through JSON first: a page made of a file that was read again is the same.
    text = json.dumps(json_safe(outcome), ensure_ascii=False, allow_nan=False, indent=1)
    template = importlib.resources.files(__package__).joinpath("page.html.jinja")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    with matplotlib.rc_context(plots.STYLE):
        page = environment.from_string(template.read_text(encoding="utf-8")).render(
            outcome=outcome,
            interval=table.interval,
            mean_of=table.mean_of,
            legend=_legend(outcome["variants"]),
            curves=_curves(outcome),
            dots=_dots(outcome),
        )
    storage.make_folder(path.parent)
    path.write_text(page, encoding="utf-8")
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def _look(index: int) -> tuple[str, Any]:
    """Returns colour and line style of the variant with this index."""
    style = _STYLES[index // len(_COLOURS) % len(_STYLES)]
    return _COLOURS[index % len(_COLOURS)], style


def _legend(variants: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    dashes = {_STYLES[0]: "none", _STYLES[1]: "5 2", _STYLES[2]: "1.5 1.5"}
    return [
        {"name": variant["name"], "colour": colour.replace("_", "-"), "dash": dashes[style]}
        for index, variant in enumerate(variants)
        for colour, style in [_look(index)]
    ]


def band(variant: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the student steps [N] and held-out losses [S, N] measured with every seed."""
    by_seed = [dict(map(tuple, trial["curve"])) for trial in variant["trials"].values()]
    steps = sorted(set.intersection(*(set(curve) for curve in by_seed)))
    losses_SN = np.array([[curve[step] for step in steps] for curve in by_seed], float)
    return np.array(steps, float), losses_SN


def _curves(outcome: Outcome) -> list[dict[str, Any]]:
    bands = [(index, *band(variant)) for index, variant in enumerate(outcome["variants"])]
    drawn = [(index, steps, losses_SN) for index, steps, losses_SN in bands if len(steps)]
    panels = []
    for kind, width, height in (("wide", 800, 380), ("narrow", 350, 320)) if drawn else ():
        figure, axes = plots.panel(width, height, x="student steps", y="held-out loss (nats)")
        for index, steps, losses_SN in drawn:
            colour, style = _look(index)
            ink = plots.COLOUR[colour]
            axes.plot(steps, losses_SN.mean(0), color=ink, linestyle=style)
            lowest, highest = losses_SN.min(0), losses_SN.max(0)
            axes.fill_between(steps, lowest, highest, color=ink, alpha=0.15, linewidth=0)
        axes.set_xlim(0, outcome["student_steps"])
        title = "Held-out loss over student steps, mean and range over seeds"
        svg = plots.svg(figure, f"curves-{kind}", title)
        panels.append({"kind": kind, "svg": svg, "title": title})
    return panels


def _dots(outcome: Outcome) -> list[dict[str, Any]]:
    variants = outcome["variants"]
    panels = []
    for kind, width, left in (("wide", 800, 230), ("narrow", 350, 150)):
        height = _ROW * len(variants) + 70
        figure, axes = plots.panel(width, height, x="held-out loss (nats)", y="", left=left)
        for index, variant in enumerate(variants):
            ink, loss = plots.COLOUR[_look(index)[0]], variant["loss"]
            values = [t["scores"]["masked_lm_loss"] for t in variant["trials"].values()]
            axes.plot(values, [index + 0.3] * len(values), ".", color=ink, markersize=4)
            if loss["low"] == loss["low"]:
                axes.plot([loss["low"], loss["high"]], [index, index], color=ink, linewidth=3)
            axes.plot([loss["mean"]], [index], "o", color=ink, markersize=8)
        axes.set_yticks(range(len(variants)), [variant["name"] for variant in variants])
        axes.set_ylim(len(variants) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.2f}"))
        axes.xaxis.set_major_locator(MaxNLocator(4 if width < 500 else 7))
        title = "Final held-out loss by variant: mean, 95 % interval, seeds"
        svg = plots.svg(figure, f"dots-{kind}", title)
        panels.append({"kind": kind, "svg": svg, "title": title})
    return panels
