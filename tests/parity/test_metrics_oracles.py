"""Our scores equal those of scikit-learn, scipy and seqeval, degenerate input included."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilebert_jax.finetune import metrics

pytestmark = pytest.mark.parity

CLOSE = {"rel": 0, "abs": 1e-9}
ROUNDS = 300


@pytest.fixture(autouse=True)
def _quiet() -> object:
    """The oracles warn of the degenerate input that is meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _class_lists(classes: int) -> list[tuple[NDArray, NDArray]]:
    random = np.random.default_rng(classes)
    pairs = []
    for _ in range(ROUNDS):
        rows = int(random.integers(1, 60))
        # Few distinct classes in short lists: many of either side are constant.
        present = random.integers(1, classes + 1, 2)
        pairs.append(tuple(random.integers(0, most, rows) for most in present))
    ones, zeros = np.ones(5, int), np.zeros(5, int)
    return [*pairs, (ones, ones), (zeros, zeros), (ones, zeros), (zeros, ones)]  # type: ignore


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_matthews_and_accuracy_equal_scikit_learn(classes: int) -> None:
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    for labels, predicted in _class_lists(classes):
        found = metrics.matthews(labels, predicted)
        assert found == pytest.approx(matthews_corrcoef(labels, predicted), **CLOSE)
        right = accuracy_score(labels, predicted)
        assert metrics.accuracy(labels, predicted) == pytest.approx(right, **CLOSE)


def test_f1_equals_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    for labels, predicted in _class_lists(2):
        expected = f1_score(labels, predicted)
        assert metrics.f1(labels, predicted) == pytest.approx(expected, **CLOSE)


def _number_lists() -> list[tuple[NDArray, NDArray]]:
    random = np.random.default_rng(0)
    pairs = []
    for turn in range(ROUNDS):
        rows = int(random.integers(2, 80))
        labels = random.integers(0, 6, rows) / 1.0
        noise = random.normal(scale=10.0 ** random.integers(-6, 4), size=rows)
        predicted = labels * random.choice([-1, 0, 1]) + noise
        if turn % 3 == 0:
            predicted = np.round(predicted)  # ties on both sides, sometimes nothing but
        pairs.append((labels, predicted))
    constant = np.full(6, 2.5)
    varied = np.arange(6.0)
    return [*pairs, (constant, varied), (varied, constant), (constant, constant)]


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlations_equal_scipy_and_are_0_where_it_has_none(name: str) -> None:
    from scipy import stats

    oracle = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[name]
    undefined = 0
    for labels, predicted in _number_lists():
        expected = float(oracle(labels, predicted)[0])
        if np.isnan(expected):
            undefined += 1
            assert np.ptp(labels) == 0 or np.ptp(predicted) == 0
            expected = 0.0
        assert metrics.METRICS[name](labels, predicted) == pytest.approx(expected, **CLOSE)
    assert 3 <= undefined < ROUNDS / 2


@pytest.mark.parametrize("letters", ["I", "BI", "BIES"])
def test_entity_scores_equal_seqeval(letters: str) -> None:
    from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

    random = np.random.default_rng(len(letters))
    tags = ["O", *(f"{letter}-{kind}" for letter in letters for kind in ("PER", "LOC", "A-B"))]
    for _ in range(ROUNDS):
        lengths = random.integers(1, 12, int(random.integers(1, 6)))
        gold = [random.choice(tags, n).tolist() for n in lengths]
        # Half of the words as they are, so that some entities are right.
        said = [
            [old if random.random() < 0.5 else str(random.choice(tags)) for old in row]
            for row in gold
        ]
        for row in (*gold, *said):
            assert metrics.entities(row) == get_entities(row)
        found = metrics.entity_f1(gold, said)
        overall = precision_recall_fscore_support(gold, said, average="micro")[:3]
        assert list(found.values())[:3] == pytest.approx([100 * v for v in overall], **CLOSE)
        kinds = sorted({e[0] for row in (*gold, *said) for e in get_entities(row)})
        each = precision_recall_fscore_support(gold, said, average=None)[:3]
        ours = [[found[f"{n}/{kind}"] for kind in kinds] for n in ("precision", "recall", "f1")]
        assert np.array(ours) == pytest.approx(100 * np.array(each), **CLOSE)


def test_entity_scores_without_entities_equal_seqeval() -> None:
    from seqeval.metrics import f1_score

    nothing, something = [["O", "O"]], [["O", "B-PER"]]
    for gold, said in ((nothing, nothing), (nothing, something), (something, nothing)):
        assert metrics.entity_f1(gold, said)["f1"] == f1_score(gold, said) == 0.0
