"""Which app a file is for is said of the right networks only."""

import dataclasses
from typing import Any

import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.data import tokenizer as tokenizer_lib
from mobilebert_jax.data.library_tokenizer import LibraryTokenizer
from mobilebert_jax.data.wordpiece import WordPiece
from mobilebert_jax.interop.litert import apps
from mobilebert_jax.interop.model import Kind, Model
from tests.interop import exchanged


def network(kind: Kind = "sequence_classification", **changes: Any) -> Model:
    return exchanged.make(exchanged.CONFIGS["masks_padding"], kind)._replace(**changes)


def wordpiece(pieces: list[str], lowercase: bool = True) -> WordPiece:
    return WordPiece("\n".join(pieces).encode(), lowercase, "a test")


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("sequence_classification", "MediaPipe's TextClassifier"),
        ("bare", "MediaPipe's TextEmbedder"),
        ("question_answering", "the TFLite Task Library's BertQuestionAnswerer"),
    ],
)
def test_each_kind_has_its_app(kind: Kind, task: str) -> None:
    assert apps.fit(network(kind), 384, "float32") == apps.Fit(task)


def test_pretraining_rows_are_no_pairs_of_an_embedder() -> None:
    assert apps.fit(network("bare"), 16, "int8").task


@pytest.mark.parametrize("kind", ["token_classification", "multiple_choice", "masked_lm"])
def test_what_apps_have_no_task_for_is_said(kind: Kind) -> None:
    found = apps.fit(network(kind), 16, "float32")
    assert found.task == "" and kind.replace("_", " ") in found.obstacle


PIECES = exchanged.PIECES
_OTHERS = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<cls>", "[SEP]": "<sep>"}


@pytest.mark.parametrize(
    ("tokenizer", "obstacle"),
    [
        (None, "has no tokenizer"),
        (wordpiece(PIECES, lowercase=False), "vocabulary is cased"),
        (wordpiece([_OTHERS.get(p, p) for p in PIECES]), "special tokens are <pad>"),
        (wordpiece([*PIECES[1:], "[PAD]"]), f"with padding {len(PIECES) - 1}, and apps"),
    ],
)
def test_other_tokenizers_than_the_apps_own_are_said(tokenizer: Any, obstacle: str) -> None:
    found = apps.fit(network(tokenizer=tokenizer), 16, "float32")
    assert found.task == "" and obstacle in found.obstacle


def test_a_vocabulary_of_other_letters_is_for_no_app() -> None:
    for letters, fits in (("ж", False), ("z", True)):
        pieces = [*PIECES, *(letters * n for n in range(1, len(PIECES) + 2))]
        found = apps.fit(network(tokenizer=wordpiece(pieces)), 16, "float32")
        assert bool(found.task) == fits
        assert ("most of its vocabulary is not ASCII" in found.obstacle) == (not fits)


def test_kinds_of_tokenizers_that_apps_lack_are_said(tmp_path) -> None:
    settings = schema.Tokenizer(kind="sentencepiece_unigram", vocab_size=40)
    lines = ["the film was good", "the film was not bad", "unbelievable tokyo"] * 9
    trained = tokenizer_lib.train(lines, settings, tmp_path)
    content = wordpiece(PIECES)._library.to_str().encode()
    for tokenizer in (trained, LibraryTokenizer(content, "a test")):
        found = apps.fit(network(tokenizer=tokenizer), 16, "float32")
        assert found.task == ""
        assert f"of the kind {tokenizer.kind!r}, and apps have BERT's" in found.obstacle


@pytest.mark.parametrize(
    ("length", "mode", "obstacle"),
    [
        (128, "float32", "reads 384 tokens, and its files have 128"),
        (384, "int8", "computes other numbers with this kind of int8"),
        (384, "dynamic_int8", "computes other numbers with this kind of int8"),
    ],
)
def test_what_the_answerer_does_not_read_is_said(length: int, mode: str, obstacle: str) -> None:
    found = apps.fit(network("question_answering"), length, mode)
    assert found.task == "" and obstacle in found.obstacle


def test_a_classifier_of_pairs_is_for_no_app_that_reads_one_text() -> None:
    found = apps.fit(network(), 16, "float32", pairs=True)
    assert found.task == "" and "pairs of texts" in found.obstacle


def test_labels_of_several_lines_are_said() -> None:
    found = apps.fit(network(labels=("one", "two\nthree", "four")), 16, "float32")
    assert found.task == "" and "'two\\nthree' is not one line" in found.obstacle


def test_classes_without_names_are_numbered_and_a_number_has_none() -> None:
    assert apps.labels(network()) == ("negative", "neutral", "positive")
    assert apps.labels(network(labels=())) == ("LABEL_0", "LABEL_1", "LABEL_2")
    config = dataclasses.replace(exchanged.CONFIGS["tiny"])
    assert apps.labels(exchanged.make(config, "sequence_classification", ())) == ()
    assert apps.labels(network("question_answering")) == ()


def test_every_id_has_a_line_of_the_vocabulary() -> None:
    pieces = [piece if piece != "[unused1]" else "" for piece in PIECES]
    lines = apps.vocabulary(wordpiece(pieces)).decode().split("\n")
    assert lines.pop() == ""
    assert lines[2] == "[blank 2]"
    assert [line for n, line in enumerate(lines) if n != 2] == [p for p in pieces if p]
