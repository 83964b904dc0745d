"""Drawing for the page of a run: matplotlib metrics that become SVG in the page's own colours.

Colours are the variables of the page's style sheet, so that drawings follow its light and dark
form. Panels are drawn at the size at which a phone shows them; the page sets as many side by side
as fit.

Legend: N points of a curve.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from mobilebert_jax.report import summary
from mobilebert_jax.report.task_summary import NETWORKS

# Colours that stand for the style sheet's variables until the drawing is inside the page.
_VARIABLES = ("ink", "soft", "rule", "shade", *NETWORKS, *summary.TRANSFER_TERMS)
COLOUR = {name: f"#0a0b{index:02x}" for index, name in enumerate(_VARIABLES)}
"""Of each variable of the style sheet, what stands for it in a drawing."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": COLOUR["rule"],
    "axes.labelcolor": COLOUR["soft"],
    "text.color": COLOUR["soft"],
    "xtick.color": COLOUR["rule"],
    "ytick.color": COLOUR["rule"],
    "xtick.labelcolor": COLOUR["soft"],
    "ytick.labelcolor": COLOUR["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.size": 4,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": COLOUR["rule"],
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.9,
}


def panel(
    width: int, height: int, *, x: str, y: str, left: int = 38, right: int = 12
) -> tuple[Figure, Axes]:
    """Returns empty axes `width` x `height` CSS pixels large, the y label above them."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, bottom=40 / height, top=1 - 26 / height
    )
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.set_xlabel(x, loc="right")
    figure.text(2 / width, 1 - 3 / height, y, va="top")
    axes.xaxis.set_major_locator(MaxNLocator(4 if width < 500 else 7, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def log_scale(axes: Axes, values: np.ndarray) -> None:
    """Gives `axes` a logarithmic y axis with few ticks that fits the positive, finite `values`."""
    usable = values[np.isfinite(values) & (values > 0)]
    if not len(usable):
        return
    low, high = usable.min() / 1.15, usable.max() * 1.15
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    subdivisions = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(10, subs=subdivisions, numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.minorticks_off()


def draw_curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, *, average: bool = True
) -> None:
    """Draws one training curve: its points, or them faintly and their moving average on top."""
    steps, values = summary.grouped(steps), summary.grouped(values)
    axes.plot(steps, values, color=colour, linewidth=1, alpha=0.35 if average else 1.0)
    if average:
        axes.plot(steps, summary.smoothed(values), color=colour)


def label_ends(axes: Axes, lines: Sequence[tuple[str, str, np.ndarray]]) -> None:
    """Names each (label, colour, values) at its right end, moving apart what would overlap."""
    axes.get_ylim()  # settles the limits on which the heights below depend
    taken = -np.inf
    ends = []
    for label, colour, values in lines:
        last = summary.smoothed(summary.grouped(values))[-1]
        ends.append((float(axes.transData.transform((0.0, last))[1]), label, colour))
    for height, label, colour in sorted(end for end in ends if np.isfinite(end[0])):
        taken = max(height, taken + 15)
        axes.annotate(
            label, (1, taken), (7, 0), xycoords=("axes fraction", "figure pixels"),
            textcoords="offset points", va="center", color=colour, weight="bold",
        )  # fmt: skip


def svg(figure: Figure, prefix: str, title: str) -> Markup:
    """Returns `figure` as an svg element whose ids begin with `prefix` and which names no URL."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    view = re.search(r'viewBox="[^"]*"', text)
    if view is None:
        raise RuntimeError("matplotlib wrote an SVG without a viewBox")
    # The page's style sheet takes the place of the drawing's own, which would rule the whole page.
    body = text[text.index(">", view.end()) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    for name, colour in COLOUR.items():
        body = body.replace(colour, f"var(--{name.replace('_', '-')})")
    return Markup(
        f'<svg role="img" {view[0]} aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"{body}</svg>"
    )
