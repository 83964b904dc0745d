"""Sentences of tagged words in CoNLL's format."""

from pathlib import Path

import pytest

from mobilebert_jax.config.finetune import Files
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.examples import TaskData
from mobilebert_jax.finetune.tagging import conll

_SPACES = (
    "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n"
    "-DOCSTART- -X- -X- O\n\n\nPeter NNP B-NP B-PER\nBlackburn NNP I-NP I-PER\n"
)
_TABS = "New York\tB-LOC\n \u00a0\tO\n\nDüsseldorf\tS-LOC\n"


def _read(folder: Path, **contents: str) -> TaskData:
    for name, content in contents.items():
        (folder / f"{name}.conll").write_bytes(content.encode())
    return conll.read(Files(**{name: str(folder / f"{name}.conll") for name in contents}))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_columns_separated_by_spaces(tmp_path: Path, line_end: str) -> None:
    content = _SPACES.replace("\n", line_end)
    data = _read(tmp_path, train=content, dev=content)
    assert data.labels == ("O", "B-ORG", "B-PER", "I-PER")
    where = f"{tmp_path}/train.conll"
    assert list(data.train) == [
        (("EU", "rejects"), (1, 0), f"{where}:3"),
        (("Peter", "Blackburn"), (2, 3), f"{where}:9"),
    ]
    assert [row[:2] for row in data.dev["dev"]] == [row[:2] for row in data.train]
    assert data.test == {}


def test_dev_sentences_that_were_learnt_are_counted(tmp_path: Path) -> None:
    data = _read(tmp_path, train=_TABS, dev=f"{_TABS}\nDüsseldorf\tO\n\nHamburg\tO\n")
    assert data.notes == {"dev.conll: rows that are among the training rows too": 3}


def test_columns_separated_by_tabs_keep_the_spaces_of_words(tmp_path: Path) -> None:
    data = _read(tmp_path, train=_TABS, dev=_TABS)
    assert data.labels == ("O", "B-LOC", "S-LOC")
    assert [row[:2] for row in data.train] == [
        (("New York", "\u00a0"), (1, 0)),
        (("Düsseldorf",), (2,)),
    ]


def test_several_spaces_between_columns(tmp_path: Path) -> None:
    content = "EU   NNP  B-ORG \nsays VBZ   O\n"
    assert _read(tmp_path, train=content, dev=content).train[0][:2] == (("EU", "says"), (1, 0))


def test_tags_without_an_outside_tag(tmp_path: Path) -> None:
    content = "a DET\ncat NOUN\n"
    assert _read(tmp_path, train=content, dev=content).labels == ("DET", "NOUN")


def test_a_test_file_may_have_words_alone(tmp_path: Path) -> None:
    data = _read(tmp_path, train=_TABS, dev=_TABS, test="Bonn\nliegt\n\nhier\n")
    assert [row[:2] for row in data.test["test"]] == [(("Bonn", "liegt"), ()), (("hier",), ())]
    data = _read(tmp_path, train=_TABS, dev=_TABS, test="Bonn\tS-LOC\n")
    assert data.test["test"][0][:2] == (("Bonn",), (2,))
    with pytest.raises(InputError, match=r"dev\.conll:1: one column, but a word and its tag"):
        _read(tmp_path, train=_TABS, dev="Bonn\n")


@pytest.mark.parametrize(
    ("dev", "message"),
    [
        ("a\tO\nb\tI-LOC\n", r"dev\.conll:2: the label 'I-LOC' is unknown; allowed are O, B-LOC"),
        ("a\tB-LOK\n", r"dev\.conll:1: .*; the nearest is 'B-LOC'"),
        ("a\tO\n\nb\n", r"dev\.conll:3: 1 columns where 2 are expected"),
        ("a\tO\nb\tx\tO\n", r"dev\.conll:2: 3 columns where 2 are expected"),
        ("a\tO\n\tO\n", r"dev\.conll:2: the word or its tag is empty"),
        ("a\tO\nb\t\n", r"dev\.conll:2: the word or its tag is empty"),
        ("-DOCSTART- O\n\n", r"dev\.conll holds no sentences"),
        ("", r"dev\.conll holds no sentences"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(tmp_path: Path, dev: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _read(tmp_path, train=_TABS, dev=dev)


def test_files_that_cannot_train(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.conll: all words have the tag 'O'"):
        _read(tmp_path, train="a O\nb O\n", dev=_SPACES)
    with pytest.raises(InputError, match=r"files\.dev is empty"):
        _read(tmp_path, train=_SPACES)
    with pytest.raises(InputError, match=r"files\.train is empty"):
        _read(tmp_path, dev=_SPACES)
