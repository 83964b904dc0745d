"""Tags of words: entities worked by hand, words that were cut off, and the files of predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune.examples import Tagged, TaskData
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.finetune.tagging import task as tagging_task
from mobilebert_jax.finetune.task import LoadedTask

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "anna", "met", "bob", "in", "rom", "##e")
LABELS = ("O", "B-LOC", "B-PER", "I-PER")
OUT, LOC, PER, IN_PER = range(4)
DEV = (
    Tagged(("Anna", "Bob", "met", "Rome"), (PER, IN_PER, OUT, LOC), "f:1"),
    Tagged(("in", "Rome"), (OUT, LOC), "f:6"),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES))
    return tokenizers.load(path, schema.Tokenizer())


def load(
    tokenizer: Tokenizer,
    dev: Sequence[Tagged] = DEV,
    length: int = 16,
    labels: tuple[str, ...] = LABELS,
    test: Sequence[Tagged] = (),
) -> LoadedTask:
    data = TaskData(labels, DEV, {"dev": dev}, {"test": test} if test else {}, {"notes": 2})
    return tagging_task.load("tag", "train.conll", data, tokenizer, length)


def outputs(rows: Rows, tags: Sequence[int], count: int = 4) -> np.ndarray:
    """Outputs, [F, C], that say `tags` at the words' first pieces and rubbish everywhere else."""
    said_F = np.full(len(rows.ids_F), count - 1)
    said_F[rows.token_targets["label_weights"] > 0] = tags
    return np.eye(count, dtype=np.float32)[said_F]


def test_perfect_outputs_score_100(tokenizer: Tokenizer) -> None:
    task = load(tokenizer)
    metrics = task.score({"dev": outputs(task.dev["dev"], [PER, IN_PER, OUT, LOC, OUT, LOC])})
    assert metrics == {
        f"{name}{kind}": 100.0
        for kind in ("", "/LOC", "/PER")
        for name in ("precision", "recall", "f1")
    }
    assert task.main == ("f1",)
    assert (task.kind, task.outputs, task.reads) == ("tags", 4, "every")


def test_metrics_worked_by_hand(tokenizer: Tokenizer) -> None:
    task = load(tokenizer)
    # Of three entities one place is found; the person is half found; a second place is not there.
    metrics = task.score({"dev": outputs(task.dev["dev"], [PER, OUT, OUT, LOC, LOC, OUT])})
    assert metrics == pytest.approx(
        {
            "precision": 100 / 3,
            "recall": 100 / 3,
            "f1": 100 / 3,
            "precision/LOC": 50.0,
            "recall/LOC": 50.0,
            "f1/LOC": 50.0,
            "precision/PER": 0.0,
            "recall/PER": 0.0,
            "f1/PER": 0.0,
        }
    )


def test_words_that_were_cut_off_are_predicted_to_be_outside(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    # [CLS] anna bob met rom ##e [SEP] has 7 tokens: the word Rome does not fit into 5.
    task = load(tokenizer, length=5)
    assert task.dev["dev"].lengths_N.tolist() == [5, 5]
    said = outputs(task.dev["dev"], [PER, IN_PER, OUT, OUT, LOC])
    metrics = task.score({"dev": said})
    assert metrics["recall"] == pytest.approx(200 / 3)
    assert metrics["precision"] == 100.0
    task.write(tmp_path, {"dev": said}, {})
    assert (tmp_path / "dev-dev.conll").read_text() == (
        "Anna\tB-PER\nBob\tI-PER\nmet\tO\nRome\tO\n\nin\tO\nRome\tB-LOC\n"
    )
    assert task.notes == {"notes": 2, "sentences cut at 5 tokens": 2}  # one in train, one in dev


def test_sentences_of_a_test_file_need_no_tags(tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = load(tokenizer, test=[Tagged(("Bob", "Zürich"), (), "t:1")])
    task.write(
        tmp_path,
        {"dev": outputs(task.dev["dev"], [OUT] * 6)},
        {"test": outputs(task.test["test"], [PER, LOC])},
    )
    written = (tmp_path / "test-test.conll").read_text(encoding="utf-8")
    assert written == "Bob\tB-PER\nZürich\tB-LOC\n"


def test_tags_that_are_not_of_entities_are_scored_by_words(tokenizer: Tokenizer) -> None:
    dev = [Tagged(("Anna", "met", "Bob"), (0, 1, 0), "f:1")]
    data = TaskData(("NOUN", "VERB"), dev, {"dev": dev}, {}, {})
    task = tagging_task.load("tag", "pos.conll", data, tokenizer, 16)
    assert task.main == ("accuracy",)
    assert task.score({"dev": outputs(task.dev["dev"], [0, 1, 0], 2)}) == {"accuracy": 100.0}
    found = task.score({"dev": outputs(task.dev["dev"], [0, 0, 0], 2)})
    assert found == {"accuracy": pytest.approx(200 / 3)}


def test_a_misspelt_tag_beside_o_is_refused_before_anything_is_trained(
    tokenizer: Tokenizer,
) -> None:
    with pytest.raises(InputError, match="'PER-B' is no tag of an entity"):
        load(tokenizer, labels=("O", "B-LOC", "PER-B", "I-PER"))


def test_the_digest_follows_words_and_tags(tokenizer: Tokenizer) -> None:
    same = load(tokenizer).digest
    assert load(tokenizer).digest == same
    others = {
        load(tokenizer, dev=[DEV[0]]).digest,
        load(tokenizer, dev=[DEV[0], DEV[1]._replace(tags=(OUT, PER))]).digest,
        load(tokenizer, dev=[DEV[0], DEV[1]._replace(words=("in", "Anna"))]).digest,
        load(tokenizer, labels=("O", "B-ORG", "B-PER", "I-PER")).digest,
        load(tokenizer, test=[DEV[0]]).digest,
    }
    assert len(others) == 5 and same not in others
