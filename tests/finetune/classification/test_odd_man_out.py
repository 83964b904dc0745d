"""Sentences of made-up documents as a task: in half, a word of like frequency is out of place."""

from collections import Counter
from pathlib import Path

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import corpus, prepare_unit
from mobilebert_jax.data.corpus import Document
from mobilebert_jax.finetune.classification import odd_man_out
from mobilebert_jax.finetune.examples import Example, TaskData

SHARE = 0.5
NOUNS = ("bird", "stone", "river", "cloud", "engine", "garden")
VERBS = ("moves", "breaks", "follows", "hides", "carries")


def sentence(document: int, number: int) -> str:
    noun, verb = NOUNS[(document + number) % 6], VERBS[(document * 3 + number) % 5]
    return f"Number {document} and {number} says Anna's {noun} never {verb} any other {noun}."


def document(number: int, lines: int = 4) -> Document:
    return Document((*(sentence(number, n) for n in range(lines)), "Too short."), f"text:{number}")


DOCUMENTS = [document(number) for number in range(160)]


def read(
    monkeypatch: pytest.MonkeyPatch, documents: list[Document], share: float = SHARE
) -> TaskData[Example]:
    pieces = [documents[start : start + 7] for start in range(0, len(documents), 7)]
    monkeypatch.setattr(corpus, "plan_shards", lambda source, size: pieces)
    monkeypatch.setattr(corpus, "read", iter)
    return odd_man_out.read("text:made_up.txt", share, 1)


def rows(data: TaskData[Example]) -> list[Example]:
    return [*data.train, *data.dev["dev"]]


def written(example: Example) -> str:
    number, line = example.id.removeprefix("text:").split(":")
    return sentence(int(number), int(line))


def test_an_original_is_as_written_and_in_the_others_one_word_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaced = 0
    for example in rows(read(monkeypatch, DOCUMENTS)):
        pairs = list(zip(example.first.split(), written(example).split(), strict=True))
        differing = [pair for pair in pairs if pair[0] != pair[1]]
        assert len(differing) == example.label
        replaced += len(differing)
    assert 0.4 < replaced / len(rows(read(monkeypatch, DOCUMENTS))) < 0.6


def test_only_words_in_lower_case_are_replaced_and_only_by_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for example in rows(read(monkeypatch, DOCUMENTS)):
        assert example.first.startswith("Number ") and example.first.endswith(".")
        assert " Anna's " in example.first
        assert example.first.replace("Number", "").replace("Anna", "").islower()


def test_a_word_gives_way_to_one_of_like_frequency(monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(monkeypatch, DOCUMENTS)
    counts = Counter(word.strip(".") for e in rows(data) for word in written(e).split())
    for example in rows(data):
        for new, old in zip(example.first.split(), written(example).split(), strict=True):
            ratio = counts[new.strip(".")] / counts[old.strip(".")]
            assert 1 / 4 < ratio < 4, (new, old)


def test_train_and_dev_are_of_different_documents_all_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = read(monkeypatch, DOCUMENTS)
    train, dev = ({e.where for e in part} for part in (data.train, data.dev["dev"]))
    assert train and dev and not train & dev
    held_out = {d.origin for d in DOCUMENTS if prepare_unit.is_held_out(d.lines, SHARE)}
    assert train | dev == held_out
    assert len({e.id for e in rows(data)}) == len(rows(data))


def test_a_sentence_of_several_documents_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    again = [Document((*d.lines, "One more line."), f"copy:{d.origin}") for d in DOCUMENTS]
    one, both = (read(monkeypatch, documents) for documents in (DOCUMENTS, DOCUMENTS + again))
    found = [example.id.replace("copy:text", "text") for example in rows(both)]
    assert len(set(found)) == len(found) >= len(rows(one))


def test_reading_ends_with_enough_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odd_man_out, "MOST_SENTENCES", 150)
    assert len(rows(read(monkeypatch, DOCUMENTS))) == 150
    monkeypatch.setattr(odd_man_out, "MOST_OF_A_DOCUMENT", 2)
    data = read(monkeypatch, DOCUMENTS)
    assert set(Counter(e.where for e in rows(data)).values()) == {2}


def test_the_same_text_gives_the_same_rows_with_any_number_of_workers(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join("\n".join(d.lines) for d in DOCUMENTS))
    one, two = (odd_man_out.read(f"text:{path}", SHARE, workers) for workers in (1, 2))
    assert one == two and one.labels == ("original", "replaced")


def test_too_few_sentences_are_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError) as error:
        read(monkeypatch, DOCUMENTS, 0.001)
    message = str(error.value)
    assert message.startswith("the task 'odd_man_out' needs 100 sentences of 6 to 30 words")
    assert "data.validation_fraction=0.001 keeps only 0 from pretraining" in message
