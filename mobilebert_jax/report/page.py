"""The report of a run: one html page that needs nothing but itself.

Curves are drawn as SVG inside the page; bars, tables and attention maps are the template's own.

Legend: S pieces of the attention sentence, L layers, N points of a curve.
"""

import base64
import importlib.resources
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mobilebert_jax import storage
from mobilebert_jax.number_format import compact, duration
from mobilebert_jax.report import export_summary, plots, summary, task_page
from mobilebert_jax.report.summary import Results
from mobilebert_jax.training.metric_log import floats_of, json_safe

Rows = Sequence[Mapping[str, Any]]
Curves = Mapping[str, Rows]

MOST_LAYERS, MOST_HEADS, MOST_PIECES = 6, 4, 32
"""Attention maps, and rows of one, that the page holds: it stays small with large models."""
_DASHES = {"feature_map": "-", "attention": "-", "mean": (0, (5, 2)), "variance": (0, (1.5, 1.5))}
_MAP_COLOUR = {"teacher": (38, 126, 200), "student": (222, 98, 12)}


def write_report(results: Results, curves: Curves, path: Path) -> None:
    """Writes the page to `path`, and its metrics to `results.json` and `curves.json` beside it.

    `results` is what the stages evaluate, finetune and export measured; `curves` maps a stage to
    the rows of its metrics.jsonl. A section whose part is absent from them (no baseline, no
    transfer, no tasks) is left out.
    """
    results = floats_of(results)
    template = importlib.resources.files(__package__).joinpath("page.html.jinja")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(compact=compact, duration=duration)
    with matplotlib.rc_context(plots.STYLE):
        page = environment.from_string(template.read_text(encoding="utf-8")).render(
            results=results,
            models=summary.models_of(results),
            comparison=summary.comparison(results),
            copy_gain=summary.comparison(results).get("copy_gain"),
            copies_embeddings=summary.copies_embeddings(results),
            perplexity=summary.perplexity,
            steps={stage["name"]: stage["steps"] for stage in results["stages"]},
            hero=_student_curves(results, curves),
            stage_panels=_stage_panels(results, curves),
            transfer_panels=_transfer_panels(curves.get("transfer", ())),
            rms=_feature_rms(results.get("feature_rms", {})),
            tasks=task_page.page_parts(results["finetune"]) if "finetune" in results else None,
            exported=export_summary.rows_of(results["export"]) if "export" in results else [],
            attention=_attention(results.get("attention", {})),
        )
    storage.make_folder(path.parent)
    path.write_text(page, encoding="utf-8")
    for name, value in (("results.json", results), ("curves.json", curves)):
        text = json.dumps(json_safe(value), ensure_ascii=False, allow_nan=False, indent=1)
        path.with_name(name).write_text(text + "\n", encoding="utf-8")


# ---- curves ------------------------------------------------------------------------------------


def _student_curves(results: Results, curves: Curves) -> list[dict[str, Any]]:
    """Student, control and baseline over the student's steps, for wide and for narrow screens."""
    offset = sum(s["steps"] for s in results["stages"] if s["name"] == "transfer")
    lines = [
        (name, steps + shift, values)
        for name, stage, shift in (
            ("baseline", "baseline", 0),
            ("control", "control", 0),
            ("student", "distill", offset),
        )
        for steps, values in [summary.series(curves.get(stage, ()), "masked_lm_loss")]
        if len(steps)
    ]
    panels = []
    for kind, width, height in (("wide", 800, 340), ("narrow", 350, 300)) if lines else ():
        figure, axes = plots.panel(
            width, height, right=64, x="student steps", y="masked-LM loss (nats)"
        )
        for name, steps, values in lines:
            plots.draw_curve(axes, steps, values, plots.COLOUR[name])
        axes.set_xlim(0, max(1.0, *(steps[-1] for _, steps, _ in lines)))
        _guess_line(axes, results, width)
        if offset and any(name == "student" for name, *_ in lines):
            axes.axvspan(0, offset, color=plots.COLOUR["shade"], linewidth=0, zorder=0)
            place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center"}
            axes.text(offset / 2, 0.03, "layer transfer", **place)
        plots.label_ends(axes, [(name.capitalize(), plots.COLOUR[name], v) for name, _, v in lines])
        title = "Masked-LM loss of " + " and ".join(name for name, *_ in reversed(lines))
        panels.append(
            {"kind": kind, "svg": plots.svg(figure, f"hero-{kind}", title), "title": title}
        )
    return panels


def _stage_panels(results: Results, curves: Curves) -> list[dict[str, Any]]:
    """One panel for each stage whose loss the first drawing does not show."""
    panels = []
    for stage, name, colour, title, y in (
        ("teacher", "masked_lm_loss", "teacher", "Teacher", "masked-LM loss (nats)"),
        ("transfer", "loss", "student", "Layer transfer", "weighted loss"),
        ("distill", "distillation_loss", "student", "Distillation", "distillation loss (nats)"),
    ):
        steps, values = summary.series(curves.get(stage, ()), name)
        if not len(steps):
            continue
        figure, axes = plots.panel(290, 215, x="steps", y=y)
        # Each phase begins with a jump that an average would turn into a slope.
        phases = any("layer" in row for row in curves[stage])
        plots.draw_curve(axes, steps, values, plots.COLOUR[colour], average=not phases)
        if stage == "transfer":
            plots.log_scale(axes, values)
        axes.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
        if name == "masked_lm_loss":
            _guess_line(axes, results, 290)
        panels.append({"title": title, "svg": plots.svg(figure, f"stage-{stage}", title)})
    return panels


def _transfer_panels(rows: Rows) -> list[dict[str, Any]]:
    """The four losses of each layer, as shares of what they were when its phase began."""
    phases = summary.transfer_phases(rows)
    if not phases:
        return []
    shares = np.concatenate([share for _, lines in phases for *_, share in lines])
    panels = []
    for index, (label, lines) in enumerate(phases):
        figure, axes = plots.panel(220, 175, x="steps", y="% of first loss")
        for term, steps, share in lines:
            steps, share = summary.grouped(steps), summary.smoothed(summary.grouped(share))
            axes.plot(
                steps, share, color=plots.COLOUR[term], linestyle=_DASHES[term], linewidth=1.6
            )
        plots.log_scale(axes, shares)
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
        panels.append(
            {"title": label, "svg": plots.svg(figure, f"transfer-{index}", f"{label} losses")}
        )
    return panels


def _feature_rms(rms: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Root mean square of the features after each layer, by model."""
    lines = [(name, np.asarray(rms[name], float)) for name in summary.MODELS if rms.get(name)]
    panels = []
    for kind, width, height in (("wide", 800, 280), ("narrow", 350, 260)) if lines else ():
        values = np.concatenate([line for _, line in lines])
        figure, axes = plots.panel(width, height, right=64, x="after layer", y="feature RMS")
        for name, line in lines:
            axes.plot(range(len(line)), line, color=plots.COLOUR[name], marker="o", markersize=4)
        if values.min() > 0 and values.max() > 20 * values.min():
            plots.log_scale(axes, values)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        plots.label_ends(
            axes, [(name.capitalize(), plots.COLOUR[name], line) for name, line in lines]
        )
        title = "Root mean square of the features after each layer"
        panels.append(
            {"kind": kind, "svg": plots.svg(figure, f"rms-{kind}", title), "title": title}
        )
    return panels


def _guess_line(axes: Axes, results: Results, width: int) -> None:
    """Marks the loss of guessing every hidden piece by its frequency, where it was measured."""
    if "unigram" not in results:
        return
    loss = results["unigram"]["masked_lm_loss"]
    axes.axhline(loss, color=plots.COLOUR["soft"], linewidth=1, linestyle=(0, (3, 3)))
    axes.annotate(
        "guessing by word frequency" if width > 500 else "guessing by frequency",
        (1, loss), (-2, 4), xycoords=("axes fraction", "data"), textcoords="offset points",
        ha="right",
    )  # fmt: skip


# ---- attention ---------------------------------------------------------------------------------


def _attention(attention: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the maps to show: images, weights per mille, overlaps and the pair shown first."""
    if not attention.get("teacher") or not attention.get("student"):
        return None
    maps = {name: np.asarray(attention[name], float) for name in ("teacher", "student")}  # LHSS
    depth, width = (min(map_.shape[axis] for map_ in maps.values()) for axis in (0, 1))
    layers, heads = _spread(depth, MOST_LAYERS), _spread(width, MOST_HEADS)
    pieces = attention["pieces"][:MOST_PIECES]
    pairs, weights = [], []
    for layer in layers:
        for head in heads:
            teacher, student = (maps[name][layer, head] for name in ("teacher", "student"))
            pair: dict[str, Any] = {"layer": layer + 1, "head": head + 1}
            pair["overlap"] = float(np.minimum(teacher, student).sum(-1).mean())
            weight = dict(pair)
            for name in maps:
                shown = maps[name][layer, head, : len(pieces), : len(pieces)]
                pair[name] = _png(shown, _MAP_COLOUR[name])
                weight[name] = np.rint(1000 * shown).astype(int).ravel().tolist()
            pairs.append(pair)
            weights.append(weight)
    by_overlap = sorted(range(len(pairs)), key=lambda index: pairs[index]["overlap"])
    return {
        "pieces": pieces,
        "margin": 22 + round(6.6 * min(12, max(map(len, pieces)))),
        "cut": len(pieces) < len(attention["pieces"]),
        "pairs": pairs,
        "weights": weights,
        "heads": len(heads),
        "first": by_overlap[len(pairs) // 2],
        "all_shown": len(layers) == depth and len(heads) == width,
    }


def _spread(count: int, most: int) -> list[int]:
    """Returns at most `most` of the indices below `count`, evenly, the first and last included."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def _png(weights: np.ndarray, colour: tuple[int, int, int]) -> str:
    """Returns a data URI of one pixel a weight; opacity is its root, so that small ones show."""
    pixels = np.empty((*weights.shape, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = np.rint(255 * np.sqrt(np.clip(weights, 0.0, 1.0)))
    buffer = io.BytesIO()
    nothing: Any = {"Software": None}  # an identical image has identical bytes in every version
    matplotlib.image.imsave(buffer, pixels, format="png", metadata=nothing)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
