from pathlib import Path

import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune.examples import Example, Tagged
from mobilebert_jax.finetune.features import FILLER, of_sentences, of_words
from mobilebert_jax.finetune.task import LoadedTask

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "##x", "##y")
PAD, UNK, CLS, SEP = 0, 1, 2, 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path: Path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES))
    return tokenizers.load(path, schema.Tokenizer())


def ids(*pieces: str) -> list[int]:
    names = {"CLS": "[CLS]", "SEP": "[SEP]", "UNK": "[UNK]"}
    return [PIECES.index(names.get(piece, piece)) for piece in pieces]


def example(first: str, second: str | None = None, label: float | None = 0.0) -> Example:
    return Example("0", first, second, label, "here:1")


def test_a_text_and_a_pair_are_framed_as_bert_frames_them(tokenizer: Tokenizer) -> None:
    rows, cut = of_sentences(
        [example("a bx"), example("a", "c d", 1.0)], tokenizer, 16, number=False
    )
    assert rows.ids_F.tolist() == [
        *ids("CLS", "a", "b", "##x", "SEP"),
        *ids("CLS", "a", "SEP", "c", "d", "SEP"),
    ]
    assert rows.starts.tolist() == [0, 5, 11]
    assert rows.second_N.tolist() == [5, 3]
    assert rows.targets["labels"].tolist() == [0, 1]
    assert rows.targets["labels"].dtype == np.int32
    assert cut == 0


def test_rows_know_whether_any_has_two_texts(tokenizer: Tokenizer) -> None:
    for second, pairs in ((None, False), ("c", True)):
        rows, _ = of_sentences([example("a"), example("b", second)], tokenizer, 16, number=False)
        assert rows.has_pairs == pairs


@pytest.mark.parametrize(
    ("first", "second", "length", "kept"),
    [
        ("a a a a a", "b b", 8, (3, 2)),  # the longer one is cut
        ("a a", "b b b b b", 8, (2, 3)),
        ("a a a a a", "b b b b b", 9, (3, 3)),
        ("a a a a a", "b b b b b", 8, (3, 2)),  # equal: the second one first
        ("a a a a a", None, 5, (3, 0)),
    ],
)
def test_texts_that_are_too_long_are_cut_as_bert_cuts_them(
    tokenizer: Tokenizer, first: str, second: str | None, length: int, kept: tuple[int, int]
) -> None:
    rows, cut = of_sentences([example(first, second)], tokenizer, length, number=False)
    found = rows.ids_F.tolist()
    assert (found.count(PIECES.index("a")), found.count(PIECES.index("b"))) == kept
    assert len(found) == length and found[-1] == SEP
    assert cut == 1


def test_numbers_are_floats_and_rows_without_labels_have_none(tokenizer: Tokenizer) -> None:
    rows, _ = of_sentences([example("a", label=2.5)], tokenizer, 8, number=True)
    assert rows.targets["labels"].dtype == np.float32
    unlabelled, _ = of_sentences([example("a", label=None)], tokenizer, 8, number=False)
    assert not unlabelled.targets


def test_a_batch_is_padded_and_its_fillers_weigh_nothing(tokenizer: Tokenizer) -> None:
    rows, _ = of_sentences([example("a"), example("b", "c d", 1.0)], tokenizer, 16, number=False)
    batch = rows.batch(np.array([1, FILLER, 0]), 8, PAD)
    assert batch["input_ids"].tolist() == [
        [*ids("CLS", "b", "SEP", "c", "d", "SEP"), PAD, PAD],
        [PAD] * 8,
        [*ids("CLS", "a", "SEP"), *[PAD] * 5],
    ]
    assert batch["input_mask"].sum(1).tolist() == [6, 0, 3]
    assert batch["segment_ids"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0], [0] * 8, [0] * 8]
    assert batch["row_weights"].tolist() == [1.0, 0.0, 1.0]
    assert batch["labels"][[0, 2]].tolist() == [1, 0]


def test_a_word_is_learnt_at_its_first_piece(tokenizer: Tokenizer) -> None:
    sentence = Tagged(("ax", "\u200b", "bxy"), (1, 2, 3), "here:1")
    rows, cut = of_words([sentence], tokenizer, 16)
    assert rows.ids_F.tolist() == ids("CLS", "a", "##x", "UNK", "b", "##x", "##y", "SEP")
    assert rows.token_targets["label_weights"].tolist() == [0, 1, 0, 1, 1, 0, 0, 0]
    assert rows.token_targets["labels"].tolist() == [0, 1, 0, 2, 3, 0, 0, 0]
    assert cut == 0
    shorter, cut = of_words([sentence], tokenizer, 5)
    assert shorter.ids_F.tolist() == ids("CLS", "a", "##x", "UNK", "SEP")
    assert shorter.token_targets["label_weights"].tolist() == [0, 1, 0, 1, 0]
    assert cut == 1


def test_splits_of_one_name_do_not_hide_each_other(tokenizer: Tokenizer) -> None:
    def digest(dev: str, test: str) -> str:
        rows = [
            of_sentences([example(text)], tokenizer, 16, number=False)[0] for text in (dev, test)
        ]
        task = LoadedTask(
            "mnli", "MNLI", "classes", ("0", "1"), 16, rows[0], {"matched": rows[0]},
            {"matched": rows[1]}, ("accuracy",), lambda outputs: {}, lambda *rest: None, {},
        )  # fmt: skip
        return task.digest

    assert len({digest("a", "b"), digest("b", "b"), digest("a", "a"), digest("b", "a")}) == 4


def test_the_digest_sees_every_part(tokenizer: Tokenizer) -> None:
    def digest(*examples: Example) -> str:
        return of_sentences(list(examples), tokenizer, 16, number=False)[0].digest

    known = {
        digest(example("a b")),
        digest(example("a c")),
        digest(example("a b", label=1.0)),
        digest(example("a b", label=None)),
        digest(example("a"), example("b")),
        digest(example("a", "b")),
    }
    assert len(known) == 6
    assert digest(example("a b")) == digest(example("a  b"))
