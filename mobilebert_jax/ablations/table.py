"""The comparison of variants on the console."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mobilebert_jax.ablations.variants import variants_of
from mobilebert_jax.config.schema import Config

COLOURS = {"reproduced": "green", "contrary": "red", "undecided": "yellow"}


def show_planned(config: Config, console: Console) -> None:
    """Prints the variants of an experiment that would be trained, and what each changes."""
    seeds = config.ablations.seeds
    table = Table(title=f"variants, each with {len(seeds)} seeds")
    for name in ("variant", "stage", "changes"):
        table.add_column(name)
    for variant in variants_of(config):
        changes = ", ".join(f"{key}={value}" for key, value in variant.settings.items())
        table.add_row(variant.name, variant.stage, changes)
    console.print(table)


def show(outcome: Mapping[str, Any], console: Console, path: Path) -> None:
    """Prints each variant's loss over seeds, the verdict on each claim, and where the page lies."""
    console.print()
    console.print(_variants(outcome))
    if outcome["claims"]:
        console.print(_claims(outcome))
    console.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)


def interval(spread: Mapping[str, float], places: int = 3) -> str:
    """Returns the 95 % interval as text; a single seed has none."""
    if spread["low"] != spread["low"]:
        return "one seed"
    return f"{spread['low']:.{places}f} to {spread['high']:.{places}f}"


def mean_of(variant: Mapping[str, Any], metric: str) -> float:
    """Returns the mean over seeds of one score of a variant."""
    values = [float(trial["scores"][metric]) for trial in variant["trials"].values()]
    return sum(values) / len(values)


def _variants(outcome: Mapping[str, Any]) -> Table:
    seeds, teacher = outcome["seeds"], outcome["teacher"]
    table = Table(
        title=f"{outcome['name']}: held-out masked-LM loss in nats, {len(seeds)} seeds, "
        f"{outcome['student_steps']:,} student steps"
    )
    table.add_column("variant")
    for name in ("mean", "95 % interval", "range", "accuracy", "attention"):
        table.add_column(name, justify="right")
    table.add_row(
        "teacher",
        f"{teacher['masked_lm_loss']:.3f}",
        "",
        "",
        f"{teacher['masked_lm_accuracy']:.1%}",
        f"{teacher['attention_worth']:.3f}",
        style="dim",
    )
    for variant in outcome["variants"]:
        loss = variant["loss"]
        table.add_row(
            variant["name"],
            f"{loss['mean']:.3f}",
            interval(loss),
            f"{loss['minimum']:.3f} to {loss['maximum']:.3f}",
            f"{mean_of(variant, 'masked_lm_accuracy'):.1%}",
            f"{mean_of(variant, 'attention_worth'):.3f}",
        )
    return table


def _claims(outcome: Mapping[str, Any]) -> Table:
    table = Table(title="the paper's claims, by paired differences over seeds")
    table.add_column("claim")
    table.add_column("gain", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("verdict")
    for claim in outcome["claims"]:
        table.add_row(
            claim["claim"],
            f"{claim['gain']['mean']:+.3f}",
            interval(claim["gain"]),
            f"[{COLOURS[claim['verdict']]}]{claim['verdict']}[/]",
        )
    return table
