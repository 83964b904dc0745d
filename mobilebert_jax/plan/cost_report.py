"""What a job costs, for people: the tables that a request for quota or money is made of."""

import math
from collections.abc import Callable, Sequence

import rich.console
import rich.table

from mobilebert_jax.plan import costs as costs_lib
from mobilebert_jax.plan.costs import Costs
from mobilebert_jax.plan.report import FIGURES, figures, table

CAUSES = ("input", "checkpoints", "compilation", "failures")


def show(costs: Costs, console: rich.console.Console) -> None:
    """Prints chip-hours, losses, checkpoints and what hosts must feed, and what they rest on."""
    made = [_by_stage("chip-hours", costs, costs.chip_hours)]
    if costs.assumptions.price:
        made.append(_by_stage("money", costs, costs.money))
    for one in (*made, _losses(costs), _checkpoints(costs), _feeding(costs)):
        console.print(one)
    for line in _notes(costs):
        console.print(line, markup=False)


def _by_stage(title: str, costs: Costs, unit: Callable[[float], float]) -> rich.table.Table:
    """Of steps alone, from, likely and to; and of likely steps with what is lost beside them."""
    made = table(title, "stage", *FIGURES, "with losses")
    for stage in costs.stages:
        made.add_row(stage.name, *_numbers([unit(s) for s in (*stage.steps_s, stage.total_s)]))
    sums = [sum(stage.steps_s[i] for stage in costs.stages) for i in range(len(FIGURES))]
    made.add_row("all", *_numbers([unit(s) for s in (*sums, costs.total_s)]))
    return made


def _losses(costs: Costs) -> rich.table.Table:
    """Time lost as a share of likely steps, and what is left for them."""
    made = table("lost beside the steps", "stage", *CAUSES, "goodput")
    for stage in costs.stages:
        shares = (stage.lost[cause] / stage.steps_s[1] for cause in CAUSES)
        made.add_row(stage.name, *(_percent(share) for share in shares), f"{stage.goodput:.1%}")
    made.add_row("all", *("" for _ in CAUSES), f"{costs.goodput:.1%}")
    return made


def _checkpoints(costs: Costs) -> rich.table.Table:
    made = table("checkpoints", "stage", "GB", "saves", "seconds each", "share of time")
    for stage in costs.stages:
        made.add_row(
            stage.name,
            f"{stage.checkpoint_bytes / 1e9:.2f}",
            f"{stage.saves:,}",
            figures([stage.save_s])[0],
            _percent(stage.save_share),
        )
    return made


def _feeding(costs: Costs) -> rich.table.Table:
    made = table("examples a second of one host", "step", "likely", "at most", "the feed makes")
    for one in costs.feeding:
        made.add_row(one.step.label, *_numbers([one.likely, one.most, one.given]))
    return made


def _notes(costs: Costs) -> list[str]:
    given, failures = costs.assumptions, sum(stage.failures for stage in costs.stages)
    expected = figures([failures])[0] if math.isfinite(failures) else "without end"
    notes = [
        "with losses: likely steps and what is lost beside them",
        f"checkpoints: at {given.checkpoint_gb_per_s:g} GB/s (--checkpoint_gb_per_s), in the "
        "background",
        f"failures: {expected} at {given.failures_per_chip_year:g} a chip and year "
        f"(--failures_per_chip_year); each costs detection, {costs_lib.START_S:.0f} s to start "
        "(assumed), restoring, and the steps since the last checkpoint",
        "compilation: in the time of two cores that do nothing else",
        "feed: one thread a host reading records, on the slowest CPU measured",
    ]
    if any(one.likely > one.given for one in costs.feeding):
        notes.append(
            "some steps wait for their batches: take hosts whose cores are faster, or more hosts"
        )
    if not all(math.isfinite(stage.total_s) for stage in costs.stages):
        notes.append(
            "a failure is likelier than the next checkpoint: lower execution.checkpoint_every"
        )
    return notes


def _numbers(numbers: Sequence[float]) -> list[str]:
    """As `figures`; a number without end is `never`."""
    finite = [number for number in numbers if math.isfinite(number)]
    texts = iter(figures(finite))
    return [next(texts) if math.isfinite(number) else "never" for number in numbers]


def _percent(share: float) -> str:
    return f"{share:.1%}" if math.isfinite(share) else "all"
