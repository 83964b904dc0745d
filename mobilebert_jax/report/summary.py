"""What the results of a run say: the comparisons that matter, and the tables at its end."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mobilebert_jax.number_format import compact, duration
from mobilebert_jax.report import export_summary, task_summary

Results = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]
Series = tuple[str, np.ndarray, np.ndarray]

MODELS = ("teacher", "student", "control", "baseline")
"""In the order in which every table and figure shows them."""
TRANSFER_TERMS = ("feature_map", "attention", "mean", "variance")
"""The losses of layer transfer (paper section 3.4)."""
MOST_POINTS = 400
"""Points of one curve that are drawn; longer ones are averaged in groups."""


def perplexity(loss: float) -> float:
    """Returns e to the masked-LM loss (nats); infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def models_of(results: Results) -> dict[str, Any]:
    """Returns the models that were evaluated, in the order of MODELS."""
    models = results.get("models", {})
    return {name: models[name] for name in MODELS if name in models}


def comparison(results: Results) -> dict[str, float]:
    """Returns how the student compares with control, baseline and teacher on held-out text.

    transfer_gain (nats) is what layer-wise transfer gained: the control's loss minus the student's.
    copy_gain (nats) is what copied parameters and distillation gained without it: the baseline's
    loss minus the control's.
    loss_gain (nats) and accuracy_gain (share) are the baseline's loss minus the student's and the
    student's accuracy minus the baseline's; gap_closed is the share of the way from the baseline's
    loss to the teacher's that the student went, where the teacher is ahead of the baseline;
    parameter_share is the student's part of the teacher's. A key is absent where a model it needs
    is.
    """
    models = results.get("models", {})
    student, teacher, baseline = (models.get(name) for name in ("student", "teacher", "baseline"))
    control = models.get("control")
    found: dict[str, float] = {}
    if student and control:
        found["transfer_gain"] = control["masked_lm_loss"] - student["masked_lm_loss"]
    if control and baseline:
        found["copy_gain"] = baseline["masked_lm_loss"] - control["masked_lm_loss"]
    if student and baseline:
        found["loss_gain"] = baseline["masked_lm_loss"] - student["masked_lm_loss"]
        found["accuracy_gain"] = student["masked_lm_accuracy"] - baseline["masked_lm_accuracy"]
    if student and teacher:
        found["parameter_share"] = student["parameters"] / teacher["parameters"]
    if student and teacher and baseline and baseline["masked_lm_loss"] > teacher["masked_lm_loss"]:
        headroom = baseline["masked_lm_loss"] - teacher["masked_lm_loss"]
        found["gap_closed"] = found["loss_gain"] / headroom
    return found


def verdict(results: Results) -> str:
    """Returns one sentence on what layer-wise transfer gained the student, and what else did.

    Empty without a student and its control, or where a loss is not finite.
    """
    found = comparison(results)
    gain = found.get("transfer_gain", math.nan)
    if not math.isfinite(gain):
        return ""
    verb = "gains" if gain > 0 else "costs"
    said = f"Layer-wise transfer {verb} the student {abs(gain):.2f} nats"
    copied = found.get("copy_gain", math.nan)
    if math.isfinite(copied):
        copies = copies_embeddings(results)
        others = (
            "copied embeddings and distillation alone are" if copies else "distillation alone is"
        )
        side = "ahead of" if copied > 0 else "behind"
        said += f"; {others} {abs(copied):.2f} {side} training from scratch"
    return f"{said}."


def copies_embeddings(results: Results) -> bool:
    """Whether student and control began with the teacher's embeddings and heads."""
    return bool(results.get("config", {}).get("transfer.copy_embeddings", True))


def series(rows: Rows, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps (N,) and values (N,) of the rows that hold `metric`."""
    found = [(float(row["step"]), float(row[metric])) for row in rows if metric in row]
    steps, values = np.array(found, float).reshape(-1, 2).T
    return steps, values


def grouped(values: np.ndarray) -> np.ndarray:
    """Returns at most MOST_POINTS means of neighbouring values; (N,) -> (at most MOST_POINTS,)."""
    groups = np.array_split(values, min(len(values), MOST_POINTS))
    return np.array([group.mean() for group in groups])


def smoothed(values: np.ndarray) -> np.ndarray:
    """Returns a centred moving average over 5 % of the curve, leaving out what is not finite."""
    window = np.ones(2 * (len(values) // 40) + 1)
    finite = np.isfinite(values)
    total = np.convolve(np.where(finite, values, 0.0), window)
    count = np.convolve(finite.astype(float), window)
    middle = slice(len(window) // 2, len(window) // 2 + len(values))
    return total[middle] / np.where(count[middle] > 0, count[middle], np.nan)


def transfer_phases(rows: Rows) -> list[tuple[str, list[Series]]]:
    """Returns (label, [(term, steps, per cent)]) for each layer that the rows of a transfer name.

    Steps count from the first row of the layer's phase, losses are in per cent of that row's: NaN
    where that is not above 0.

    Rows of a progressive transfer say which layer is active; those of a joint one hold metrics such
    as `feature_map/layer_03`, and without them count as one phase of all layers.
    """
    if any("layer" in row for row in rows):
        layers = sorted({int(row["layer"]) for row in rows if "layer" in row})
        groups = [
            (f"Layer {layer + 1}", "", [row for row in rows if row.get("layer") == layer])
            for layer in layers
        ]
    else:
        names = sorted({key.partition("/")[2] for row in rows for key in row if "/layer_" in key})
        groups = [
            (f"Layer {int(name.removeprefix('layer_')) + 1}", f"/{name}", list(rows))
            for name in names
        ] or [("All layers", "", list(rows))]
    phases = []
    for label, suffix, chosen in groups:
        lines = []
        for term in TRANSFER_TERMS:
            steps, values = series(chosen, term + suffix)
            if len(steps):
                whole = values[0] if values[0] > 0 else np.nan
                lines.append((term, steps - steps[0], 100 * values / whole))
        if lines:
            phases.append((label, lines))
    return phases


def print_summary(results: Results, console: Console, *, report: Path | None = None) -> None:
    """Prints models, tasks, files, stages, the student's guesses and where the report lies.

    What was not measured (no evaluation, no fine-tuning, no export) is left out.
    """
    console.print()
    if models_of(results):
        console.print(_models_table(results))
        if said := verdict(results):
            console.print(f"{said} One seed; several: launch/run.sh experiments/ablations.py")
    if "finetune" in results:
        console.print(task_summary.tasks_table(results["finetune"]))
    if "export" in results:
        console.print(export_summary.export_table(results["export"]))
    if results["stages"]:
        console.print(_stages_table(results))
    guesses = results.get("fill_mask", {}).get("models", {}).get("student")
    if guesses:
        console.print(_fill_mask_table(results["fill_mask"]["sentence"], guesses))
    if report is not None:
        console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)


def _models_table(results: Results) -> Table:
    table = Table(title=f"{escape(results['name'])}: {results['examples']:,} held-out examples")
    table.add_column("model")
    for name in ("loss", "perplexity", "accuracy", "NSP accuracy", "attention", "parameters", "MB"):
        table.add_column(name, justify="right")
    unigram = results["unigram"]
    table.add_row("unigram", *_language_model_cells(unigram), "", "", "", "", style="dim")
    for name, model in models_of(results).items():
        table.add_row(
            name,
            *_language_model_cells(model),
            f"{model['next_sentence_accuracy']:.1%}",
            f"{model['attention_worth']:.3f}" if "attention_worth" in model else "",
            compact(model["parameters"]),
            f"{model['megabytes_float32']:.1f}",
            style="bold" if name == "student" else None,
        )
    return table


def _language_model_cells(model: Mapping[str, float]) -> tuple[str, str, str]:
    loss = model["masked_lm_loss"]
    return f"{loss:.3f}", f"{perplexity(loss):.1f}", f"{model['masked_lm_accuracy']:.1%}"


def _stages_table(results: Results) -> Table:
    table = Table(title="stages")
    table.add_column("stage")
    for name in ("steps", "time", "tokens", "tokens/s"):
        table.add_column(name, justify="right")
    for stage in results["stages"]:
        # The steps of fine-tuning are those of its trials, which are stages of their own.
        trains = stage["steps"] > 0
        table.add_row(
            stage["name"],
            f"{stage['steps']:,}" if trains else "",
            duration(stage["seconds"]),
            compact(stage["tokens"]) if trains else "",
            compact(stage["tokens_per_s"]) if trains else "",
        )
    return table


def _fill_mask_table(sentence: str, guesses: list[dict[str, Any]]) -> Table:
    table = Table(title="the student fills the mask", caption=escape(sentence))
    table.add_column("piece")
    table.add_column("probability", justify="right")
    for guess in guesses[:5]:
        # A piece such as [unused1] would otherwise be read as markup and vanish.
        table.add_row(escape(guess["piece"]), f"{guess['probability']:.1%}")
    return table
