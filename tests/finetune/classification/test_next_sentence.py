"""Sentences of made-up documents in pairs: half follow each other, half are of two documents."""

from collections import Counter
from pathlib import Path

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import corpus, prepare_unit
from mobilebert_jax.data.corpus import Document
from mobilebert_jax.finetune.classification import next_sentence
from mobilebert_jax.finetune.examples import Example, TaskData

SHARE = 0.5


def sentence(document: int, number: int) -> str:
    return f"Sentence {number} of the document {document}."


def document(number: int, lines: int = 5) -> Document:
    return Document((*(sentence(number, n) for n in range(lines)), "Too short."), f"text:{number}")


DOCUMENTS = [document(number) for number in range(160)]


def read(
    monkeypatch: pytest.MonkeyPatch, documents: list[Document], share: float = SHARE
) -> TaskData[Example]:
    pieces = [documents[start : start + 7] for start in range(0, len(documents), 7)]
    monkeypatch.setattr(corpus, "plan_shards", lambda source, size: pieces)
    monkeypatch.setattr(corpus, "read", iter)
    return next_sentence.read("text:made_up.txt", share, 1)


def rows(data: TaskData[Example]) -> list[Example]:
    return [*data.train, *data.dev["dev"]]


def origin(text: str | None) -> str:
    assert text is not None
    return text.rpartition(" ")[2].rstrip(".")


def test_half_of_the_pairs_follow_each_other_and_half_are_of_two_documents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = read(monkeypatch, DOCUMENTS)
    for example in rows(data):
        number, line = map(int, example.id.removeprefix("text:").split(":"))
        assert example.first == sentence(number, line)
        if example.label == 0.0:
            assert example.second == sentence(number, line + 1)
        else:
            assert origin(example.second) != str(number)
    follows = sum(example.label == 0.0 for example in rows(data)) / len(rows(data))
    assert 0.4 < follows < 0.6 and data.labels == ("next", "other")


def test_train_and_dev_are_of_different_documents_all_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = read(monkeypatch, DOCUMENTS)
    sides = [
        {origin(text) for example in part for text in (example.first, example.second)}
        for part in (data.train, data.dev["dev"])
    ]
    assert all(sides) and not sides[0] & sides[1]
    held_out = {d.origin for d in DOCUMENTS if prepare_unit.is_held_out(d.lines, SHARE)}
    assert {example.where for example in rows(data)} == held_out
    assert len({example.id for example in rows(data)}) == len(rows(data))


def test_a_sentence_of_several_documents_begins_one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    again = [Document((*d.lines, "One more line here."), f"copy:{d.origin}") for d in DOCUMENTS]
    firsts = [example.first for example in rows(read(monkeypatch, DOCUMENTS + again))]
    assert len(set(firsts)) == len(firsts)


def test_reading_ends_with_enough_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_sentence, "MOST_PAIRS", 150)
    assert len(rows(read(monkeypatch, DOCUMENTS))) == 150
    monkeypatch.setattr(next_sentence, "MOST_OF_A_DOCUMENT", 2)
    data = read(monkeypatch, DOCUMENTS)
    assert set(Counter(e.where for e in rows(data)).values()) == {2}


def test_the_same_text_gives_the_same_rows_with_any_number_of_workers(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join("\n".join(d.lines) for d in DOCUMENTS))
    one, two = (next_sentence.read(f"text:{path}", SHARE, workers) for workers in (1, 2))
    assert one == two


def test_too_few_pairs_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as error:
        read(monkeypatch, DOCUMENTS, 0.001)
    message = str(error.value)
    assert message.startswith("the task 'next_sentence' needs 100 pairs of sentences of 4 to 40")
    assert "data.validation_fraction=0.001 keeps only 0 from pretraining" in message
