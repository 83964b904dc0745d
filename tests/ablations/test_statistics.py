"""Intervals against SciPy and cases worked by hand, and the verdicts they lead to."""

import math

import numpy as np
import pytest
import scipy.stats

from mobilebert_jax.ablations import statistics
from mobilebert_jax.ablations.claims import claims_of
from mobilebert_jax.ablations.statistics import Spread
from mobilebert_jax.ablations.variants import Order


def test_a_spread_worked_by_hand() -> None:
    # Deviation 1, so half the interval is t(0.975, 2) / sqrt(3) = 4.302653 / 1.732051.
    found = statistics.spread([3.0, 4.0, 5.0])
    assert found == pytest.approx((4.0, 4 - 2.484138, 4 + 2.484138, 3.0, 5.0), abs=1e-5)


def test_a_gain_is_paired_as_scipy_pairs() -> None:
    random = np.random.default_rng(0)
    worse = random.normal(5.0, 1.0, 6)
    better = worse - random.normal(0.2, 0.1, 6)
    found = statistics.gain(better.tolist(), worse.tolist())
    expected = scipy.stats.ttest_rel(worse, better).confidence_interval(0.95)
    assert found.mean == pytest.approx((worse - better).mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    # Unpaired, seeds that differ by 1 would hide a gain of 0.2.
    assert statistics.verdict(found) == "reproduced"
    assert scipy.stats.ttest_ind(worse, better).confidence_interval(0.95).low < 0


def test_equal_differences_have_an_interval_without_width() -> None:
    found = statistics.gain([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])
    assert (found.low, found.high) == (0.5, 0.5)


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan], [1.0, math.inf]])
def test_nothing_is_claimed_without_an_interval(values: list[float]) -> None:
    found = statistics.spread(values)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert statistics.verdict(found) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.3, "reproduced"),
        (-0.3, -0.01, "contrary"),
        (-0.1, 0.1, "undecided"),
        (0.0, 0.1, "undecided"),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_0(
    low: float, high: float, verdict: str
) -> None:
    assert statistics.verdict(Spread(0.0, low, high, 0.0, 0.0)) == verdict


def test_the_largest_gain_is_compared_with_the_best_other() -> None:
    # Gains 0.1, 0.5, 0.2 and 0.1, 0.7, 0.3: the second is 0.3 and 0.4 above the third.
    ladder = [[5.0, 5.1], [4.9, 5.0], [4.4, 4.3], [4.2, 4.0]]
    found = statistics.largest_gain(ladder, 2)
    assert (found.minimum, found.maximum) == pytest.approx((0.3, 0.4))
    # That into 1 gains 0.4 and 0.6 less than that into 2.
    less = statistics.largest_gain(ladder, 1)
    assert (less.minimum, less.maximum) == pytest.approx((-0.6, -0.4))


def test_claims_name_what_was_compared() -> None:
    losses = {"a": [5.0, 5.1], "b": [4.9, 5.01], "c": [4.3, 4.4]}
    claims = claims_of([Order("c", "b"), Order("a", "c")], ("a", "b", "c"), "c", losses)
    assert [claim["claim"] for claim in claims] == [
        "c is ahead of b",
        "a is ahead of c",
        "c over b gains more than b over a",
    ]
    assert [claim["verdict"] for claim in claims] == ["reproduced", "contrary", "reproduced"]
    assert claims[0]["gain"]["mean"] == pytest.approx(0.605)
    assert claims_of([], (), "c", losses) == []
