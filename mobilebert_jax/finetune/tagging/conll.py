"""Token classification in CoNLL's format: a word a line, its tag last, blank lines between."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from mobilebert_jax.config.finetune import Files
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune import line_reader
from mobilebert_jax.finetune.examples import Tagged, TaskData

OUTSIDE = "O"
"""The tag of words that belong to no entity."""
_DOCUMENT = "-DOCSTART-"


class _Sentence(NamedTuple):
    words: list[str]
    tags: list[str]
    places: list[str]


def read(files: Files) -> TaskData[Tagged]:
    """Reads files of two or more columns, separated by tabs or by spaces: word first, tag last.

    Tags are taken as they are, whatever their scheme (IOB1, IOB2, BIOES or none). `O` is label 0;
    the others of the training file follow sorted. A test file may have the words alone. Raises
    InputError, with file and line, for whatever does not fit.
    """
    if not files.train:
        raise InputError("finetune.files.train is empty; it must name a CoNLL file")
    if not files.dev:
        raise InputError(
            "finetune.files.dev is empty; a dev file is needed to choose the settings, so keep "
            "some sentences out of the training file for it"
        )
    train = list(_sentences(files.train, words_alone=False))
    tags = {tag for sentence in train for tag in sentence.tags}
    if len(tags) == 1:
        raise InputError(f"{files.train}: all words have the tag {tags.pop()!r}")
    labels = tuple(sorted(tags, key=lambda tag: (tag != OUTSIDE, tag)))
    indices = {label: index for index, label in enumerate(labels)}
    dev = list(_sentences(files.dev, words_alone=False))
    notes: Counter[str] = Counter()
    line_reader.note_shared(
        (found.words for found in train), (found.words for found in dev), files.dev, notes
    )
    test = {}
    if files.test:
        found = _sentences(files.test, words_alone=True)
        test["test"] = [_tagged(sentence, indices) for sentence in found]
    return TaskData(
        labels,
        [_tagged(sentence, indices) for sentence in train],
        {"dev": [_tagged(sentence, indices) for sentence in dev]},
        test,
        dict(notes),
    )


def _tagged(sentence: _Sentence, indices: dict[str, int]) -> Tagged:
    tags = tuple(
        line_reader.class_index(tag, indices, where)
        for tag, where in zip(sentence.tags, sentence.places, strict=False)
    )
    return Tagged(tuple(sentence.words), tags, sentence.places[0])


def _sentences(path: str, words_alone: bool) -> Iterator[_Sentence]:
    """Yields the sentences of a file; raises InputError if it has none."""
    separator, columns, empty = "", 0, True
    sentence = _Sentence([], [], [])
    for number, line in line_reader.numbered(path):
        where = f"{path}:{number}"
        if not line.strip(" \t") or line.startswith(_DOCUMENT):
            if sentence.words:
                yield sentence
            sentence = _Sentence([], [], [])
            continue
        separator = separator or ("\t" if "\t" in line else " ")
        # Not `str.strip` and `str.split` alone: a no-break space may be (part of) a word.
        fields = [field.strip(" ") for field in line.split(separator)]
        if separator == " ":
            fields = [field for field in fields if field]
        if not columns:
            columns = len(fields)
            if columns == 1 and not words_alone:
                raise InputError(f"{where}: one column, but a word and its tag are expected")
        line_reader.check_columns(len(fields), columns, where)
        if not fields[0] or not fields[-1]:
            raise InputError(f"{where}: the word or its tag is empty")
        sentence.words.append(fields[0])
        sentence.places.append(where)
        if columns > 1:
            sentence.tags.append(fields[-1])
        empty = False
    if sentence.words:
        yield sentence
    if empty:
        raise InputError(f"{path} holds no sentences")
