"""Tasks of classes and numbers: metrics worked by hand, and the files of predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune.classification import task as classification_task
from mobilebert_jax.finetune.examples import Example, TaskData
from mobilebert_jax.finetune.glue.submission import STS_B_RANGE
from mobilebert_jax.finetune.glue.tasks import GLUE
from mobilebert_jax.finetune.task import LoadedTask

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES))
    return tokenizers.load(path, schema.Tokenizer())


def examples(labels: Sequence[float | None], text: str = "a b") -> list[Example]:
    return [Example(str(10 + n), text, None, label, "f:1") for n, label in enumerate(labels)]


def one_hot(classes: Sequence[int], count: int) -> np.ndarray:
    """The outputs, [N, C], of a network that is sure of `classes`."""
    return np.eye(count, dtype=np.float32)[list(classes)]


def column(values: Sequence[float]) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def glue_task(
    name: str,
    tokenizer: Tokenizer,
    labels: Sequence[float],
    tests: Sequence[str] = (),
    devs: Sequence[str] = ("dev",),
) -> LoadedTask:
    task = GLUE[name]
    data = TaskData(
        task.labels,
        examples(labels),
        {split: examples(labels) for split in devs},
        {split: examples([None, None]) for split in tests},
        {},
    )
    return classification_task.load(
        name,
        task.title,
        data,
        tokenizer,
        16,
        task.metrics,
        files=task.submission,
        score_range=None if task.labels else STS_B_RANGE,
    )


@pytest.mark.parametrize("name", GLUE)
def test_perfect_outputs_score_100_in_every_task(name: str, tokenizer: Tokenizer) -> None:
    labels = [0, 1, 1, 0]
    devs = GLUE[name].dev_splits
    task = glue_task(name, tokenizer, labels, devs=devs)
    outputs = one_hot(labels, task.outputs) if task.labels else column(labels)
    metrics = task.score({split: outputs for split in devs})
    assert metrics == {figure: pytest.approx(100.0) for figure in task.main}
    assert len(metrics) == len(devs) * len(GLUE[name].metrics)


LABELS, SAID = [1, 1, 0, 0, 1], [1, 0, 0, 1, 1]
"""Two hits, one false alarm, one miss, one rightly 0."""


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("cola", {"matthews": 100 * (2 * 1 - 1 * 1) / (3 * 2 * 3 * 2) ** 0.5}),
        ("sst-2", {"accuracy": 60.0}),
        ("mrpc", {"f1": 100 * 2 / 3, "accuracy": 60.0}),
        ("qqp", {"f1": 100 * 2 / 3, "accuracy": 60.0}),
        ("rte", {"accuracy": 60.0}),
    ],
)
def test_metrics_of_classes_worked_by_hand(
    name: str, metrics: dict[str, float], tokenizer: Tokenizer
) -> None:
    task = glue_task(name, tokenizer, LABELS)
    found = task.score({"dev": one_hot(SAID, 2)})
    assert found == pytest.approx(metrics)
    assert list(found) == list(task.main)
    assert (task.kind, task.outputs, task.reads) == ("classes", 2, "first")


def test_metrics_of_numbers_worked_by_hand(tokenizer: Tokenizer) -> None:
    task = glue_task("sts-b", tokenizer, [0.0, 1.0, 2.0, 3.0])
    # The order is right; of the centred values the product is 15, the squares are 5 and 49.
    found = task.score({"dev": column([0.0, 1.0, 4.0, 9.0])})
    assert found == pytest.approx({"spearman": 100.0, "pearson": 100 * 15 / (5 * 49) ** 0.5})
    # One pair of neighbours is swapped: 1 - 6 * (1 + 1) / (4 * 15).
    found = task.score({"dev": column([0.0, 2.0, 1.0, 3.0])})
    assert found == pytest.approx({"spearman": 80.0, "pearson": 80.0})
    assert (task.kind, task.outputs, task.reads) == ("number", 1, "first")


def test_each_dev_set_of_mnli_has_metrics_of_its_own(tokenizer: Tokenizer) -> None:
    task = glue_task("mnli", tokenizer, [0, 1, 2, 2], devs=("matched", "mismatched"))
    found = task.score(
        {"matched": one_hot([0, 1, 2, 2], 3), "mismatched": one_hot([0, 1, 0, 0], 3)}
    )
    assert found == {"matched accuracy": 100.0, "mismatched accuracy": 50.0}
    assert task.main == ("matched accuracy", "mismatched accuracy")


def test_a_dev_set_of_mnli_keeps_its_name_when_the_other_is_missing(tokenizer: Tokenizer) -> None:
    task = glue_task("mnli", tokenizer, [0, 1], devs=("mismatched",))
    assert task.score({"mismatched": one_hot([0, 0], 3)}) == {"mismatched accuracy": 50.0}
    assert task.main == ("mismatched accuracy",)


def test_files_of_predictions_are_those_of_the_glue_server(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    devs = ("matched", "mismatched")
    task = glue_task("mnli", tokenizer, [0, 1], tests=(*devs, "ax"), devs=devs)
    said = one_hot([2, 1], 3)
    task.write(tmp_path, {split: said for split in devs}, {split: said for split in (*devs, "ax")})
    names = ("AX.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "dev-matched.tsv", "dev-mismatched.tsv")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name in names:
        text = (tmp_path / name).read_text()
        assert text == "index\tprediction\n10\tneutral\n11\tentailment\n"


def test_numbers_of_sts_b_are_kept_within_its_range(tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = glue_task("sts-b", tokenizer, [0.0, 5.0], tests=("test",))
    task.write(tmp_path, {"dev": column([5.4, -0.2])}, {"test": column([2.34567, 7.0])})
    assert (tmp_path / "dev-dev.tsv").read_text() == "index\tprediction\n10\t5.000\n11\t0.000\n"
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n10\t2.346\n11\t5.000\n"


def test_numbers_of_other_tasks_are_written_as_they_are(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    data = TaskData(
        (), examples([1.0]), {"dev": examples([-3.0, 40.0])}, {"test": examples([None])}, {}
    )
    task = classification_task.load("classify", "price.csv", data, tokenizer, 16, ("pearson",))
    task.write(tmp_path, {"dev": column([-3.25, 123456.0])}, {"test": column([0.1])})
    assert (tmp_path / "dev-dev.tsv").read_text() == "index\tprediction\n10\t-3.25\n11\t123456\n"
    assert (tmp_path / "test.tsv").read_text() == "index\tprediction\n10\t0.1\n"
    assert task.outputs == 1


def test_a_dev_file_may_name_two_rows_alike(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Readers count such rows, and every row is scored; only the server refuses them."""
    rows = [Example("7", "a", None, label, "f:1") for label in (0.0, 1.0)]
    data = TaskData(("0", "1"), rows, {"dev": rows}, {}, {})
    task = classification_task.load("rte", "RTE", data, tokenizer, 16, ("accuracy",))
    task.write(tmp_path, {"dev": one_hot([0, 1], 2)}, {})
    assert (tmp_path / "dev-dev.tsv").read_text() == "index\tprediction\n7\t0\n7\t1\n"


def test_a_test_set_without_rows_is_left_out(tokenizer: Tokenizer) -> None:
    data = TaskData(("0", "1"), examples([0, 1]), {"dev": examples([0])}, {"test": []}, {})
    task = classification_task.load("rte", "RTE", data, tokenizer, 16, ("accuracy",))
    assert task.test == {}


def test_texts_that_are_cut_are_counted_over_all_splits(tokenizer: Tokenizer) -> None:
    long = "a b c d a b c"
    data = TaskData(
        ("0", "1"),
        [*examples([0, 1]), *examples([1], long)],
        {"dev": examples([0, 1], long)},
        {"test": examples([None], long)},
        {"rows left out": 3},
    )
    task = classification_task.load("x", "x", data, tokenizer, 8, ("accuracy",))
    assert task.notes == {"rows left out": 3, "texts cut at 8 tokens": 4}
    assert task.train.lengths_N.tolist() == [4, 4, 8]


def test_the_digest_follows_every_split_and_the_names_of_classes(tokenizer: Tokenizer) -> None:
    def digest(
        train: list[Example], dev: list[Example], test: list[Example], labels: tuple[str, ...]
    ) -> str:
        data = TaskData(labels, train, {"dev": dev}, {"test": test}, {})
        return classification_task.load("x", "x", data, tokenizer, 16, ("accuracy",)).digest

    rows, unlabelled, labels = examples([0, 1]), examples([None]), ("no", "yes")
    same = digest(rows, rows, unlabelled, labels)
    assert digest(rows, rows, unlabelled, labels) == same
    others = {
        digest(examples([1, 1]), rows, unlabelled, labels),
        digest(rows, examples([1, 1]), unlabelled, labels),
        digest(examples([0, 1], "a c"), rows, unlabelled, labels),
        digest(rows, examples([0, 1], "a c"), unlabelled, labels),
        digest(rows, rows, examples([None], "c"), labels),
        digest(rows, rows, unlabelled, ("no", "maybe")),
    }
    assert len(others) == 6 and same not in others
