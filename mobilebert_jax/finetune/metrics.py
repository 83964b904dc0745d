"""Figures of sentence and token tasks, as their benchmarks define them; numpy only, in float64.

Shape suffix: N rows. All functions of one row or more return a finite number: where a definition
divides 0 by 0 (a network that says the same of every row), the docstring says what comes out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobilebert_jax.config.schema import InputError

GLUE_METRICS: Mapping[str, tuple[str, ...]] = {
    "cola": ("matthews",),
    "sst-2": ("accuracy",),
    "mrpc": ("f1", "accuracy"),
    "sts-b": ("pearson", "spearman"),
    "qqp": ("f1", "accuracy"),
    "mnli": ("matched accuracy", "mismatched accuracy"),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
}
"""Figures whose mean is a task's share of the GLUE average (Wang et al. 2018, section 3.4); MNLI's
two sets make one share."""


def matthews(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Matthews' correlation of two lists of classes, of any number of classes, in -1..1.

    0.0 where either list holds one class only: nothing varies that could agree, and scikit-learn's
    `matthews_corrcoef`, which GLUE uses for CoLA, returns the same. Raises ValueError for lists of
    different lengths, empty ones and numbers that are not finite.
    """
    labels_N, predicted_N = _rows(labels_N, predicted_N)
    classes, index = np.unique(np.concatenate([labels_N, predicted_N]), return_inverse=True)
    rows = len(labels_N)
    # Python integers: the products reach rows**4, beyond int64 for QQP's 390,965 test rows.
    true = [int(n) for n in np.bincount(index[:rows], minlength=len(classes))]
    said = [int(n) for n in np.bincount(index[rows:], minlength=len(classes))]
    correct = int(np.count_nonzero(labels_N == predicted_N))
    covariance = correct * rows - sum(t * s for t, s in zip(true, said, strict=True))
    variances = (rows**2 - sum(t * t for t in true)) * (rows**2 - sum(s * s for s in said))
    return covariance / variances**0.5 if variances else 0.0


def accuracy(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Share of the rows whose class is the predicted one, in 0..1; ValueError as `matthews`."""
    labels_N, predicted_N = _rows(labels_N, predicted_N)
    return float(np.mean(labels_N == predicted_N))


def f1(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """F1 of the positive class 1 against the negative class 0, in 0..1.

    0.0 where no row is positive, be it by label or by prediction: neither precision nor recall
    exists, and scikit-learn's `f1_score` returns the same. Raises ValueError for classes other
    than 0 and 1, and as `matthews`.
    """
    labels_N, predicted_N = _rows(labels_N, predicted_N)
    other = set(np.unique([labels_N, predicted_N]).tolist()) - {0.0, 1.0}
    if other:
        raise ValueError(f"F1 is of two classes, 0 and 1; found also {sorted(other)}")
    hits = float(np.sum(labels_N * predicted_N))
    return _harmonic(hits, float(np.sum(predicted_N)), float(np.sum(labels_N)))


def pearson(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Pearson's correlation of two lists of numbers, in -1..1.

    0.0 where either list is constant, which a list of one row always is. The quotient is 0/0 there
    and scipy's `pearsonr` returns NaN; a prediction that tells no rows apart has earned no score,
    and a NaN would vanish from medians and averages. Raises ValueError as `matthews`.
    """
    labels_N, predicted_N = _rows(labels_N, predicted_N)
    if np.all(labels_N == labels_N[0]) or np.all(predicted_N == predicted_N[0]):
        return 0.0
    product = float(np.dot(_direction(labels_N), _direction(predicted_N)))
    return min(1.0, max(-1.0, product))  # rounding alone takes it beyond


def spearman(labels_N: ArrayLike, predicted_N: ArrayLike) -> float:
    """Spearman's correlation, in -1..1: Pearson's of the ranks, equal numbers sharing their mean.

    0.0 for a constant list, and ValueError, as `pearson`.
    """
    from scipy.stats import rankdata  # takes longer to import than the rest of this package

    labels_N, predicted_N = _rows(labels_N, predicted_N)
    return pearson(rankdata(labels_N), rankdata(predicted_N))


METRICS: Mapping[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "matthews": matthews,
    "accuracy": accuracy,
    "f1": f1,
    "pearson": pearson,
    "spearman": spearman,
}


def score(metrics: Sequence[str], labels: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """The named metrics in percent, as GLUE tabulates them, in the order of `metrics`.

    `labels` and `predicted` have one class index, or number, for each row. Raises ValueError for a
    name that `METRICS` lacks and for rows that a metric refuses.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"no metric is called {unknown[0]!r}; there are {', '.join(METRICS)}")
    return {name: 100.0 * METRICS[name](labels, predicted) for name in metrics}


class PartialAverage(NamedTuple):
    """Mean over the tasks that were scored: not the GLUE average unless all nine were."""

    value: float
    tasks: int
    """How many of the nine tasks it is over."""

    def __str__(self) -> str:
        return f"{self.value:.1f} (average of {self.tasks} of {len(GLUE_METRICS)} tasks)"


def glue_average(scores: Mapping[str, Mapping[str, float]]) -> float:
    """GLUE's official macro average: the mean over the nine tasks of the mean of a task's metrics.

    `scores` has each task's metrics by the names in `GLUE_METRICS`, in percent. The diagnostic set
    `ax` is not counted. Raises ValueError that names the tasks or metrics that are missing or
    unknown (Wang et al. 2018, section 3.4).
    """
    missing = [task for task in GLUE_METRICS if task not in scores]
    if missing:
        raise ValueError(f"the GLUE average is of nine tasks; not scored: {', '.join(missing)}")
    return average_of(scores).value


def average_of(scores: Mapping[str, Mapping[str, float]]) -> PartialAverage:
    """The mean over those tasks of GLUE that are in `scores`, with their number.

    Takes and refuses what `glue_average` does, except that tasks may be missing, though not all.
    """
    means = {task: _task_mean(task, scores[task]) for task in scores if task != "ax"}
    if not means:
        raise ValueError("no task of GLUE was scored, so that there is nothing to average")
    return PartialAverage(sum(means.values()) / len(means), len(means))


def _task_mean(task: str, metrics: Mapping[str, float]) -> float:
    if task not in GLUE_METRICS:
        raise ValueError(f"{task!r} is no task of GLUE; those are {', '.join(GLUE_METRICS)}")
    # A surplus figure, such as a loss, would shift the mean unseen.
    if set(metrics) != set(GLUE_METRICS[task]):
        raise ValueError(
            f"GLUE scores {task} by {' and '.join(GLUE_METRICS[task])}, "
            f"not by {' and '.join(sorted(metrics)) or 'nothing'}"
        )
    return sum(metrics.values()) / len(metrics)


def entity_f1(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Precision, recall and F1 of whole entities over all sentences, in percent.

    `gold` and `predicted` have one tag for each word of each sentence: `O`, or `B`, `I`, `E` or
    `S`, alone or with `-TYPE`. A predicted entity is right if its first word, last word and type
    are. Tags are read leniently, as by `conlleval` and seqeval's default mode, so that IOB1, IOB2
    and BIOES work alike: see `entities`. The keys are `precision`, `recall` and `f1`, then the same
    of each type found, such as `f1/PER`, by name. A quotient of nothing, such as the precision
    where no entity was predicted, is 0.0, as in both programs. Raises ValueError for sentences or
    tags that do not correspond or are none, InputError for a tag of another form.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} sentences have tags, {len(predicted)} have predictions")
    if not gold:
        raise ValueError("there are no sentences to score")
    true, said = set(), set()
    for number, (tags, guesses) in enumerate(zip(gold, predicted, strict=True)):
        if len(tags) != len(guesses):
            raise ValueError(
                f"sentence {number} has {len(tags)} tags and {len(guesses)} predictions"
            )
        true |= {(number, *entity) for entity in entities(tags)}
        said |= {(number, *entity) for entity in entities(guesses)}
    metrics = _metrics(true, said, "")
    for name in sorted({entity[1] for entity in true | said}):
        metrics |= _metrics(
            {entity for entity in true if entity[1] == name},
            {entity for entity in said if entity[1] == name},
            f"/{name}",
        )
    return metrics


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of one sentence as (type, first word, last word), in order.

    A word that is not `O` goes on with the entity before it if both tags have the same type, its
    own is `I` or `E` and the one before is `B` or `I`; otherwise it starts an entity, whatever its
    letter. The type is what follows the first hyphen, `_` where nothing does. Raises InputError for
    a tag of another form.
    """
    found: list[tuple[str, int, int]] = []
    letter_before, type_before = "O", ""
    for word, tag in enumerate(tags):
        letter, hyphen, name = tag.partition("-")
        if letter not in ("O", "B", "I", "E", "S") or (letter == "O" and hyphen):
            raise InputError(
                f"{tag!r} is no tag of an entity; those are O, and B, I, E or S with a hyphen and "
                f"the type, such as B-PER"
            )
        name = name or "_"
        if letter != "O":
            goes_on = letter in "IE" and letter_before in ("B", "I") and name == type_before
            first = found.pop()[1] if goes_on else word
            found.append((name, first, word))
        letter_before, type_before = letter, name
    return found


def _metrics(true: set, said: set, suffix: str) -> dict[str, float]:
    hits = len(true & said)
    return {
        f"precision{suffix}": 100.0 * hits / len(said) if said else 0.0,
        f"recall{suffix}": 100.0 * hits / len(true) if true else 0.0,
        f"f1{suffix}": 100.0 * _harmonic(hits, len(said), len(true)),
    }


def _rows(labels: ArrayLike, predicted: ArrayLike) -> tuple[NDArray, NDArray]:
    labels_N, predicted_N = np.asarray(labels, np.float64), np.asarray(predicted, np.float64)
    if labels_N.ndim != 1 or labels_N.shape != predicted_N.shape:
        raise ValueError(
            f"as many predictions as labels are needed, one a row; got the shapes "
            f"{predicted_N.shape} and {labels_N.shape}"
        )
    if not len(labels_N):
        raise ValueError("there are no rows to score")
    for name, values in (("labels", labels_N), ("predictions", predicted_N)):
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise ValueError(f"the {name} hold {values[row]} in row {row}")
    return labels_N, predicted_N


def _direction(values_N: NDArray) -> NDArray:
    """The centred values at length 1."""
    centred_N = values_N - values_N.mean()
    # By the largest first: squares of tiny numbers would underflow to a length of 0.
    centred_N = centred_N / np.abs(centred_N).max()
    return centred_N / np.linalg.norm(centred_N)


def _harmonic(hits: float, said: float, true: float) -> float:
    """F1 from counts; 0 where nothing was said and nothing true."""
    return 2.0 * hits / (said + true) if said + true else 0.0
