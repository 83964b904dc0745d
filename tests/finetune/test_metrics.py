"""Scores of sentence and token tasks: worked by hand, and against slow formulas."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune import metrics

CLOSE = {"rel": 0, "abs": 1e-9}

classes = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)
numbers = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=20)


def _counts(pairs: Sequence[tuple[int, int]]) -> tuple[int, int, int, int]:
    """True positives, true negatives, false positives, false negatives."""
    return tuple(pairs.count(pair) for pair in ((1, 1), (0, 0), (0, 1), (1, 0)))  # type: ignore


def test_matthews_worked_by_hand() -> None:
    # 3 true positives, 2 true negatives, 1 false positive, 2 false negatives.
    labels, predicted = [1, 1, 1, 0, 0, 0, 1, 1], [1, 1, 1, 0, 0, 1, 0, 0]
    expected = (3 * 2 - 1 * 2) / math.sqrt(4 * 5 * 3 * 4)
    assert metrics.matthews(labels, predicted) == pytest.approx(expected, **CLOSE)


def test_matthews_of_three_classes_worked_by_hand() -> None:
    # 4 of 6 right; labels 2, 2, 2, predictions 3, 2, 1 of the classes 0, 1, 2.
    labels, predicted = [0, 0, 1, 1, 2, 2], [0, 0, 1, 0, 2, 1]
    expected = (4 * 6 - 12) / math.sqrt((36 - 12) * (36 - 14))
    assert metrics.matthews(labels, predicted) == pytest.approx(expected, **CLOSE)


def test_matthews_of_more_rows_than_products_of_int64_can_count() -> None:
    labels = np.tile([0, 1], 100_000)
    assert metrics.matthews(labels, labels) == 1.0
    assert metrics.matthews(labels, 1 - labels) == -1.0


@given(classes)
def test_matthews_and_f1_equal_their_formulas_of_the_four_counts(
    pairs: list[tuple[int, int]],
) -> None:
    labels, predicted = zip(*pairs, strict=True)
    tp, tn, fp, fn = _counts(pairs)
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    matthews = (tp * tn - fp * fn) / math.sqrt(below) if below else 0.0
    assert metrics.matthews(labels, predicted) == pytest.approx(matthews, **CLOSE)
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    assert metrics.f1(labels, predicted) == pytest.approx(f1, **CLOSE)
    right = sum(label == guess for label, guess in pairs) / len(pairs)
    assert metrics.accuracy(labels, predicted) == pytest.approx(right, **CLOSE)


def test_f1_counts_the_class_1_alone() -> None:
    # Precision 1/2, recall 1/3; of the class 0 they would be 3/5 and 3/4.
    labels, predicted = [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0]
    assert metrics.f1(labels, predicted) == pytest.approx(0.4, **CLOSE)


def test_f1_refuses_other_classes() -> None:
    with pytest.raises(ValueError, match=r"two classes, 0 and 1; found also \[2.0\]"):
        metrics.f1([0, 1, 2], [0, 1, 1])


def test_pearson_worked_by_hand() -> None:
    # Around their means 2 and 4: (-1, 0, 1) and (-3, 2, 1).
    assert metrics.pearson([1, 2, 3], [1, 6, 5]) == pytest.approx(4 / math.sqrt(28), **CLOSE)


def test_spearman_gives_equal_numbers_the_mean_of_their_ranks() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 2, 1, 3.5, 3.5: the covariance sums to 2.25, the variances to 4.5.
    found = metrics.spearman([0, 1, 1, 5], [3, 2, 9, 9])
    expected = 0.5 * 1.5 + 0.0 + 0.0 + 1.5 * 1.0
    assert found == pytest.approx(expected / 4.5, **CLOSE)


def _slow_pearson(x: Sequence[float], y: Sequence[float]) -> float:
    n = len(x)
    # Sums of products of differences of all pairs need no mean.
    pairs = [(i, j) for i in range(n) for j in range(i)]
    xy = sum((x[i] - x[j]) * (y[i] - y[j]) for i, j in pairs)
    xx = sum((x[i] - x[j]) ** 2 for i, j in pairs)
    yy = sum((y[i] - y[j]) ** 2 for i, j in pairs)
    return xy / math.sqrt(xx * yy) if xx * yy else 0.0


def _slow_ranks(values: Sequence[float]) -> list[float]:
    return [sum(v < w for v in values) + (values.count(w) + 1) / 2 for w in values]


@given(numbers, st.sampled_from([1e-160, 1e-3, 1.0, 1e9]))
def test_correlations_equal_slow_formulas_at_every_scale(
    pairs: list[tuple[int, int]], scale: float
) -> None:
    x, y = zip(*pairs, strict=True)
    scaled = [scale * value for value in y]
    assert metrics.pearson(x, scaled) == pytest.approx(_slow_pearson(x, y), **CLOSE)
    ranks = _slow_pearson(_slow_ranks(x), _slow_ranks(y))
    assert metrics.spearman(x, scaled) == pytest.approx(ranks, **CLOSE)


@pytest.mark.parametrize("metric", [metrics.matthews, metrics.pearson, metrics.spearman])
@pytest.mark.parametrize(
    ("labels", "predicted"), [([0, 1, 1], [1, 1, 1]), ([1, 1, 1], [0, 1, 1]), ([1], [1])]
)
def test_a_list_that_never_varies_correlates_with_nothing(
    metric: Callable, labels: list[int], predicted: list[int]
) -> None:
    assert metric(labels, predicted) == 0.0


@pytest.mark.parametrize("name", metrics.METRICS)
def test_every_metric_refuses_what_cannot_be_scored(name: str) -> None:
    metric = metrics.METRICS[name]
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        metric([0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match="no rows"):
        metric([], [])
    with pytest.raises(ValueError, match="predictions hold nan in row 1"):
        metric([0, 1], [0, math.nan])


def test_scores_are_in_percent_and_in_the_order_asked_for() -> None:
    found = metrics.score(["f1", "accuracy"], [1, 1, 0, 0], [1, 0, 0, 0])
    assert list(found) == ["f1", "accuracy"]
    assert found == pytest.approx({"f1": 100 * 2 / 3, "accuracy": 75.0}, **CLOSE)
    with pytest.raises(ValueError, match="no metric is called 'mcc'; there are matthews"):
        metrics.score(["mcc"], [0, 1], [0, 1])


# What the GLUE server gave BERT_BASE, its score included.
BERT_BASE = {
    "cola": {"matthews": 52.1},
    "sst-2": {"accuracy": 93.5},
    "mrpc": {"f1": 88.9, "accuracy": 84.8},
    "sts-b": {"pearson": 87.1, "spearman": 85.8},
    "qqp": {"f1": 71.2, "accuracy": 89.2},
    "mnli": {"matched accuracy": 84.6, "mismatched accuracy": 83.4},
    "qnli": {"accuracy": 90.5},
    "rte": {"accuracy": 66.4},
    "wnli": {"accuracy": 65.1},
}


def test_the_average_is_the_one_of_the_benchmark() -> None:
    found = metrics.glue_average(BERT_BASE)
    assert found == pytest.approx(705.1 / 9, **CLOSE)
    assert round(found, 1) == 78.3
    assert metrics.glue_average({**BERT_BASE, "ax": {"matthews": 1.0}}) == found


def test_an_average_of_some_tasks_says_of_how_many() -> None:
    some = {"rte": BERT_BASE["rte"], "mrpc": BERT_BASE["mrpc"], "ax": {"matthews": 1.0}}
    found = metrics.average_of(some)
    assert found.value == pytest.approx((66.4 + 86.85) / 2, **CLOSE)
    assert found.tasks == 2
    assert str(found) == "76.6 (average of 2 of 9 tasks)"
    with pytest.raises(ValueError, match="not scored: cola, sst-2, sts-b, qqp, mnli, qnli, wnli"):
        metrics.glue_average(some)


def test_an_average_refuses_metrics_that_are_not_the_benchmarks() -> None:
    with pytest.raises(ValueError, match="scores mnli by matched accuracy and mismatched accuracy"):
        metrics.average_of({"mnli": {"matched accuracy": 84.6}})
    with pytest.raises(ValueError, match="scores rte by accuracy, not by accuracy and loss"):
        metrics.average_of({"rte": {"accuracy": 66.4, "loss": 0.7}})
    with pytest.raises(ValueError, match=r"'squad_v1\.1' is no task of GLUE"):
        metrics.average_of({"squad_v1.1": {"f1": 90.0}})
    with pytest.raises(ValueError, match="no task of GLUE was scored"):
        metrics.average_of({"ax": {"matthews": 1.0}})


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", []),
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        # IOB1: B only between neighbours of one type.
        ("I-PER I-PER I-LOC B-LOC", [("PER", 0, 1), ("LOC", 2, 2), ("LOC", 3, 3)]),
        # BIOES, and its letters out of place.
        ("S-PER B-LOC I-LOC E-LOC", [("PER", 0, 0), ("LOC", 1, 3)]),
        ("E-PER I-PER E-PER E-PER", [("PER", 0, 0), ("PER", 1, 2), ("PER", 3, 3)]),
        ("S-PER E-PER O E-PER", [("PER", 0, 0), ("PER", 1, 1), ("PER", 3, 3)]),
        ("B-PER S-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("O I-LOC", [("LOC", 1, 1)]),
        ("B I O S", [("_", 0, 1), ("_", 3, 3)]),
        ("B-A-B I-A-B I-A", [("A-B", 0, 1), ("A", 2, 2)]),
    ],
)
def test_entities_are_read_from_every_scheme(
    tags: str, expected: list[tuple[str, int, int]]
) -> None:
    assert metrics.entities(tags.split()) == expected


@pytest.mark.parametrize("tag", ["L-PER", "PER", "", "O-PER", "b-PER"])
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(InputError, match=r"is no tag of an entity; those are O, and B, I, E or S"):
        metrics.entities(["O", tag])


def test_entity_scores_worked_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "O"], ["O", "B-ORG", "I-ORG"]]
    said = [["B-PER", "I-PER", "O", "B-PER"], ["B-PER", "O", "B-LOC"], ["O", "B-ORG", "O"]]
    found = metrics.entity_f1(gold, said)
    # Right: two PER. Said: three PER, one LOC, one ORG. There: two PER, one LOC, one ORG.
    assert found == pytest.approx(
        {
            "precision": 40.0,
            "recall": 50.0,
            "f1": 400 / 9,
            "precision/LOC": 0.0,
            "recall/LOC": 0.0,
            "f1/LOC": 0.0,
            "precision/ORG": 0.0,
            "recall/ORG": 0.0,
            "f1/ORG": 0.0,
            "precision/PER": 200 / 3,
            "recall/PER": 100.0,
            "f1/PER": 80.0,
        },
        **CLOSE,
    )
    assert list(found)[:4] == ["precision", "recall", "f1", "precision/LOC"]


def test_an_entity_does_not_reach_into_the_next_sentence() -> None:
    gold = [["O", "B-PER"], ["I-PER"]]
    assert metrics.entity_f1(gold, [["O", "I-PER"], ["B-PER"]])["f1"] == 100.0


def test_no_entities_score_nothing() -> None:
    assert metrics.entity_f1([["O", "O"]], [["O", "O"]]) == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
    }


def test_entity_scores_refuse_what_does_not_correspond() -> None:
    with pytest.raises(ValueError, match="2 sentences have tags, 1 have predictions"):
        metrics.entity_f1([["O"], ["O"]], [["O"]])
    with pytest.raises(ValueError, match="sentence 1 has 2 tags and 1 predictions"):
        metrics.entity_f1([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="no sentences"):
        metrics.entity_f1([], [])
