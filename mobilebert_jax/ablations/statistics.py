"""Means, intervals and verdicts over seeds.

Seeds are paired: variants with the same seed read the same batches and start from the same random
numbers. Differences are therefore taken seed by seed before their interval is.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

CONFIDENCE = 0.95

Verdict = Literal["reproduced", "contrary", "undecided"]


class Spread(NamedTuple):
    """Mean, its 95 % confidence interval by Student's t, and the range of the values."""

    mean: float
    low: float
    high: float
    minimum: float
    maximum: float


def spread(values: Sequence[float]) -> Spread:
    """Returns the spread of `values`; the interval of a single value is NaN."""
    array = np.asarray(values, float)
    low, high = _interval(array)
    return Spread(float(array.mean()), low, high, float(array.min()), float(array.max()))


def _interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    error = scipy.stats.sem(values)
    low, high = scipy.stats.t.interval(CONFIDENCE, len(values) - 1, values.mean(), error)
    return float(low), float(high)


def gain(better: Sequence[float], worse: Sequence[float]) -> Spread:
    """Returns the spread of `worse - better`, two losses per seed in the same order of seeds."""
    return spread(np.subtract(worse, better).tolist())


def largest_gain(ladder: Sequence[Sequence[float]], claimed: int) -> Spread:
    """Returns by how much the step into `ladder[claimed]` gains more than the best other step.

    `ladder` holds the losses of variants that add one part each, per seed in the same order. The
    best other step is the one with the largest mean gain.
    """
    losses_VS = np.asarray(ladder, float)
    gains_VS = losses_VS[:-1] - losses_VS[1:]
    own_S = gains_VS[claimed - 1]
    others_VS = np.delete(gains_VS, claimed - 1, axis=0)
    best_S = others_VS[int(np.argmax(others_VS.mean(axis=1)))]
    return spread((own_S - best_S).tolist())


def verdict(difference: Spread) -> Verdict:
    """Returns what a gain says of the claim that it is above 0, at 95 % confidence."""
    if difference.low > 0:
        return "reproduced"
    if difference.high < 0:
        return "contrary"
    return "undecided"
