"""Which settings of a sweep are reported: by the median over seeds, never by the luckiest run."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Point(NamedTuple):
    """Settings that were tried together."""

    batch_size: int
    learning_rate: float
    epochs: int


class Outcome(NamedTuple):
    """One finished run of fine-tuning."""

    point: Point
    seed: int
    metrics: Mapping[str, float]
    """On the dev set, higher is better; every run of a sweep has those that choose."""
    digest: str
    """Of the checkpoint it left."""


class Spread(NamedTuple):
    """One figure over the seeds of a point."""

    median: float
    minimum: float
    maximum: float
    seeds: int


class Choice(NamedTuple):
    """The settings that are reported."""

    point: Point
    main: Spread
    """Of the mean of the metrics that chose."""
    metrics: Mapping[str, Spread]
    """Each figure of the point's runs, over those of them that have it."""
    typical: Outcome
    """The run whose mean of the main metrics is the median, the lower of the middle two where the
    seeds are even in number: the one whose predictions stand for the point."""


def choose(outcomes: Sequence[Outcome], main: Sequence[str]) -> Choice:
    """The point with the best median, over its seeds, of the mean of the `main` metrics.

    Among equals the cheaper one: fewer epochs, then the larger batch, then the smaller learning
    rate. The result does not depend on the order of `outcomes`. Raises ValueError for no outcomes
    or main metrics, points that were not run with the same seeds, a run that is there twice, and a
    figure that is missing from `main` or not finite.
    """
    if not outcomes or not main:
        raise ValueError("choosing needs at least one finished run and one main figure")
    # In the order of seeds, so that the median run among equals is always the same.
    points: dict[Point, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.seed):
        _check(outcome, main)
        points.setdefault(outcome.point, []).append(outcome)
    _check_seeds(points)
    mains = {point: [_mean(run, main) for run in runs] for point, runs in points.items()}
    best = min(
        points,
        key=lambda point: (
            -statistics.median(mains[point]),
            point.epochs,
            -point.batch_size,
            point.learning_rate,
        ),
    )
    runs = points[best]
    ranked = sorted(zip(mains[best], runs, strict=True), key=lambda pair: pair[0])
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    return Choice(
        point=best,
        main=_spread(mains[best]),
        metrics={
            name: _spread([run.metrics[name] for run in runs if name in run.metrics])
            for name in names
        },
        typical=ranked[(len(ranked) - 1) // 2][1],
    )


def _mean(run: Outcome, main: Sequence[str]) -> float:
    return statistics.fmean(run.metrics[name] for name in main)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))


def _check(run: Outcome, main: Sequence[str]) -> None:
    missing = [name for name in main if name not in run.metrics]
    if missing:
        raise ValueError(f"seed {run.seed} at {run.point} has no figure {missing[0]!r}")
    for name, value in run.metrics.items():
        # NaN compares as neither more nor less: a median of it would be any of the values.
        if not math.isfinite(value):
            raise ValueError(f"seed {run.seed} at {run.point}: the figure {name!r} is {value}")


def _check_seeds(points: Mapping[Point, Sequence[Outcome]]) -> None:
    """A median over more or other seeds is not comparable."""
    seeds = {point: [run.seed for run in runs] for point, runs in points.items()}
    for point, own in seeds.items():
        if len(set(own)) < len(own):
            raise ValueError(f"{point} was run twice with one seed; its seeds are {own}")
    first = next(iter(seeds))
    for point, own in seeds.items():
        if own != seeds[first]:
            raise ValueError(
                f"{point} was run with the seeds {own}, {first} with {seeds[first]}; the medians "
                f"of points compare only over the same seeds"
            )
