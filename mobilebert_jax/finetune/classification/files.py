"""A user's own texts: CSV, TSV or JSON lines, single or in pairs, with classes or numbers."""

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mobilebert_jax.config.finetune import Files
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import json_lines
from mobilebert_jax.finetune import line_reader
from mobilebert_jax.finetune.examples import Example, TaskData

_MOST_CHARACTERS = 1 << 24  # of one field; the module's own limit is that of a long article


class _Row(NamedTuple):
    texts: list[str]
    label: str | None
    where: str


def read(files: Files) -> TaskData[Example]:
    """Reads the files by their endings, `.csv`, `.tsv` or `.jsonl`, each also with `.gz` or `.zst`.

    CSV follows RFC 4180; quotes in TSV are literal. The first line names the columns; rows are
    called by their number from 0. Classes are the sorted labels of the training file. Test files
    may lack the label, in all rows or in some. Raises InputError, with file and line, for whatever
    does not fit.
    """
    if not files.train:
        raise InputError("finetune.files.train is empty; it must name a .csv, .tsv or .jsonl file")
    if not files.dev:
        raise InputError(
            "finetune.files.dev is empty; a dev file is needed to choose the settings, so keep "
            "some rows out of the training file for it"
        )
    notes: Counter[str] = Counter()
    train = list(_kept(_rows(files, files.train), files.train, notes, train=True))
    if not train:
        raise InputError(f"{files.train} holds no training rows")
    labels: tuple[str, ...] = ()
    if files.kind == "classes":
        labels = tuple(sorted({row.label or "" for row in train}))
        if len(labels) == 1:
            raise InputError(
                f"{files.train}: all rows have the label {labels[0]!r}; at least two classes are "
                "needed"
            )
    dev = list(_kept(_rows(files, files.dev), files.dev, notes))
    if not dev:
        raise InputError(f"{files.dev} holds no rows")
    line_reader.note_shared(
        (row.texts for row in train), (row.texts for row in dev), files.dev, notes
    )
    test = {}
    if files.test:
        rows = list(_kept(_rows(files, files.test, labelled=False), files.test, notes))
        if not rows:
            raise InputError(f"{files.test} holds no rows")
        test["test"] = _examples(rows, labels)
    learnt, chosen_by = _examples(train, labels), _examples(dev, labels)
    if files.kind == "number":
        _check_numbers(files.train, learnt, "nothing can be learnt of them")
        _check_numbers(files.dev, chosen_by, "no settings can be chosen by them")
    return TaskData(labels, learnt, {"dev": chosen_by}, test, dict(notes))


def _check_numbers(path: str, examples: Sequence[Example], why: str) -> None:
    numbers = [example.label or 0.0 for example in examples]
    if min(numbers) == max(numbers):
        raise InputError(f"{path}: all rows have the number {numbers[0]:g}; {why}")


def _kept(
    rows: Iterator[_Row], path: str, notes: Counter[str], train: bool = False
) -> Iterator[_Row]:
    name = os.path.basename(path)
    return (
        row for row in rows if line_reader.keeps(row.texts, name, row.where, notes, train=train)
    )


def _examples(rows: Sequence[_Row], labels: Sequence[str]) -> list[Example]:
    indices = {label: index for index, label in enumerate(labels)}

    def value(row: _Row) -> float | None:
        if row.label is None:
            return None
        if indices:
            return line_reader.class_index(row.label, indices, row.where)
        return line_reader.score(row.label, row.where)

    return [
        Example(
            str(n), row.texts[0], row.texts[1] if row.texts[1:] else None, value(row), row.where
        )
        for n, row in enumerate(rows)
    ]


def _rows(files: Files, path: str, labelled: bool = True) -> Iterator[_Row]:
    """Yields texts and label of each row; without `labelled` the label may be missing."""
    columns = [files.text, *([files.second_text] if files.second_text else [])]
    plain = path.removesuffix(".gz").removesuffix(".zst")
    ending = os.path.splitext(plain)[1]
    if ending == ".jsonl":
        yield from _json_rows(path, columns, files.label, labelled)
    elif ending in (".csv", ".tsv"):
        table = _csv_table(path) if ending == ".csv" else _tsv_table(path)
        yield from _table_rows(table, path, columns, files.label, labelled)
    else:
        raise InputError(
            f"{path}: files end with .csv, .tsv or .jsonl, or one of these and .gz or .zst, which "
            "says what they hold"
        )


# ---- tables with a header ---------------------------------------------------------------------


def _table_rows(
    table: Iterator[tuple[int, list[str]]],
    path: str,
    columns: Sequence[str],
    label: str,
    labelled: bool,
) -> Iterator[_Row]:
    first, header = next(table, (1, []))
    if not header:
        raise InputError(f"{path} holds no rows")
    texts_at = [line_reader.position(column, header, f"{path}:{first}") for column in columns]
    label_at = None
    if labelled or label in header:
        label_at = line_reader.position(label, header, f"{path}:{first}")
    for number, fields in table:
        where = f"{path}:{number}"
        line_reader.check_columns(len(fields), len(header), where)
        found = None if label_at is None else fields[label_at].strip()
        if labelled and not found:
            raise InputError(f"{where}: the label (column {label!r}) is empty")
        line_reader.check_label(found or "", where)
        yield _Row([fields[at] for at in texts_at], found or None, where)


def _csv_table(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of a row's first line, and its fields, which may hold line feeds."""
    numbered = line_reader.numbered(path)
    csv.field_size_limit(_MOST_CHARACTERS)
    reader = csv.reader((f"{line}\n" for _, line in numbered), strict=True)
    first = 1
    try:
        for fields in reader:
            if fields:
                yield first, fields
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}:{first}: this row is not valid CSV: {error}; a text with quotes or commas "
            'stands in quotes, and a quote in it is written twice ("")'
        ) from error


def _tsv_table(path: str) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in line_reader.numbered(path) if line)


# ---- JSON lines -------------------------------------------------------------------------------


def _json_rows(path: str, columns: Sequence[str], label: str, labelled: bool) -> Iterator[_Row]:
    for number, line in line_reader.numbered(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        record = json_lines.parse(line, where)
        texts = [json_lines.text(record, column, where) for column in columns]
        found = None
        if labelled or record.get(label) not in (None, ""):
            found = _json_label(json_lines.field(record, label, where), label, where)
            line_reader.check_label(found, where)
        yield _Row(texts, found, where)


def _json_label(value: Any, name: str, where: str) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    # Python writes what is missing as NaN, which is no JSON.
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)  # true and 1 as the file writes them, not as Python does
    raise InputError(
        f"{where}: the label (field {name!r}) is {json.dumps(value)[:40]}, which is neither a text "
        "nor a finite number"
    )
