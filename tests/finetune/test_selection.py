"""The settings of a sweep that are reported: the best median, and the run that is the median."""

import math
import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilebert_jax.finetune.selection import Choice, Outcome, Point, Spread, choose

STEADY, LUCKY = Point(32, 2e-5, 3), Point(16, 5e-5, 3)


def _outcomes(metrics: Mapping[Point, list[float]]) -> list[Outcome]:
    return [
        Outcome(point, seed, {"accuracy": value}, f"{point} {seed}")
        for point, values in metrics.items()
        for seed, value in enumerate(values)
    ]


def test_the_median_chooses_not_the_luckiest_run_nor_the_mean() -> None:
    # The mean of the lucky point, 75, is above that of the steady one, 71.
    found = choose(_outcomes({LUCKY: [60.0, 99.0, 66.0], STEADY: [70.0, 71.0, 72.0]}), ["accuracy"])
    assert found.point == STEADY
    assert found.main == Spread(71.0, 70.0, 72.0, 3)
    assert found.metrics == {"accuracy": Spread(71.0, 70.0, 72.0, 3)}
    assert (found.typical.seed, found.typical.digest) == (1, f"{STEADY} 1")


def test_of_an_even_number_of_seeds_the_lower_middle_run_is_typical() -> None:
    found = choose(_outcomes({STEADY: [90.0, 70.0, 80.0, 60.0]}), ["accuracy"])
    assert found.main == Spread(75.0, 60.0, 90.0, 4)
    assert found.typical.seed == 1


def test_several_main_metrics_count_by_their_mean_and_the_rest_not_at_all() -> None:
    def run(point: Point, seed: int, f1: float, accuracy: float, loss: float) -> Outcome:
        return Outcome(point, seed, {"f1": f1, "accuracy": accuracy, "other": loss}, "")

    found = choose(
        [
            run(STEADY, 0, 80.0, 90.0, 0.0),  # 85
            run(STEADY, 1, 88.0, 84.0, 9.0),  # 86
            run(STEADY, 2, 90.0, 60.0, 1.0),  # 75
            run(LUCKY, 0, 84.0, 85.0, 99.0),  # 84.5
            run(LUCKY, 1, 84.0, 85.0, 99.0),
            run(LUCKY, 2, 84.0, 85.0, 99.0),
        ],
        ["f1", "accuracy"],
    )
    assert found.point == STEADY and found.typical.seed == 0
    assert found.main == Spread(85.0, 75.0, 86.0, 3)
    assert found.metrics["f1"] == Spread(88.0, 80.0, 90.0, 3)
    assert found.metrics["accuracy"] == Spread(84.0, 60.0, 90.0, 3)
    assert found.metrics["other"] == Spread(1.0, 0.0, 9.0, 3)


def test_a_figure_that_some_runs_lack_counts_the_runs_that_have_it() -> None:
    runs = [
        Outcome(STEADY, 0, {"f1": 50.0}, ""),
        Outcome(STEADY, 1, {"f1": 60.0, "f1/PER": 40.0}, ""),
    ]
    assert choose(runs, ["f1"]).metrics["f1/PER"] == Spread(40.0, 40.0, 40.0, 1)


@pytest.mark.parametrize(
    ("cheaper", "dearer"),
    [
        (Point(16, 5e-5, 2), Point(48, 5e-5, 3)),
        (Point(48, 5e-5, 3), Point(32, 1e-5, 3)),
        (Point(48, 1e-5, 3), Point(48, 5e-5, 3)),
    ],
)
def test_among_equals_the_cheaper_point_is_chosen(cheaper: Point, dearer: Point) -> None:
    for order in ((cheaper, dearer), (dearer, cheaper)):
        tied = _outcomes({point: [80.0, 81.0, 82.0] for point in order})
        assert choose(tied, ["accuracy"]).point == cheaper


def _slow_choice(values: Mapping[Point, list[int]]) -> tuple[Point, float, int]:
    """The point with its median and typical seed, by counting how many runs are below each."""

    def median(runs: list[int]) -> float:
        low, high = sorted(runs)[(len(runs) - 1) // 2], sorted(runs)[len(runs) // 2]
        return (low + high) / 2

    best = max(median(runs) for runs in values.values())
    tied = [point for point, runs in values.items() if median(runs) == best]
    point = sorted(tied, key=lambda p: (p.epochs, -p.batch_size, p.learning_rate))[0]
    runs = values[point]
    typical = next(
        seed
        for seed, value in enumerate(runs)
        if sum((v, s) < (value, seed) for s, v in enumerate(runs)) == (len(runs) - 1) // 2
    )
    return point, best, typical


@given(st.data())
def test_the_choice_is_that_of_a_slow_search_in_any_order_of_the_runs(data: st.DataObject) -> None:
    point = st.builds(
        Point, st.sampled_from([16, 32]), st.sampled_from([1e-5, 2e-5]), st.sampled_from([2, 3])
    )
    seeds = data.draw(st.integers(1, 6))
    values = data.draw(
        st.dictionaries(
            point, st.lists(st.integers(0, 4), min_size=seeds, max_size=seeds), min_size=1
        )
    )
    runs = _outcomes({key: [float(v) for v in row] for key, row in values.items()})
    random.Random(data.draw(st.integers(0, 99))).shuffle(runs)
    found: Choice = choose(runs, ["accuracy"])
    assert (found.point, found.main.median, found.typical.seed) == _slow_choice(values)
    assert found.typical.metrics["accuracy"] <= found.main.median


def test_what_cannot_be_compared_is_refused() -> None:
    good = _outcomes({STEADY: [70.0, 71.0], LUCKY: [60.0, 61.0]})
    with pytest.raises(ValueError, match=r"the seeds \[0\].*with \[0, 1\]|\[0, 1\].*with \[0\]"):
        choose(good[:-1], ["accuracy"])
    with pytest.raises(ValueError, match="only over the same seeds"):
        choose([*good[:-1], good[-1]._replace(seed=7)], ["accuracy"])
    with pytest.raises(ValueError, match="was run twice with one seed"):
        choose([*good, good[0]], ["accuracy"])
    with pytest.raises(ValueError, match=r"seed 0 at .* has no figure 'matthews'"):
        choose(good, ["matthews"])
    with pytest.raises(ValueError, match="at least one finished run"):
        choose([], ["accuracy"])
    with pytest.raises(ValueError, match="one main figure"):
        choose(good, [])
    broken = good[0]._replace(metrics={"accuracy": 1.0, "f1": math.nan})
    with pytest.raises(ValueError, match="the figure 'f1' is nan"):
        choose([broken, *good[1:]], ["accuracy"])
