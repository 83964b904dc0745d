"""GLUE's official files: tab-separated, quotes literal, each task with oddities of its own."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune import line_reader
from mobilebert_jax.finetune.examples import Example, TaskData
from mobilebert_jax.finetune.glue.tasks import SCORES, GlueTask, Split

_NO_LABEL = "-"
"""MNLI's label of pairs on which its annotators did not agree."""

Kind = Literal["train", "dev", "test"]


class _Row(NamedTuple):
    id: str
    texts: list[str]
    label: str | None
    where: str


def read(task: GlueTask, folder: Path) -> TaskData[Example]:
    """Reads a task's files below `folder`, which holds `CoLA/`, `SST-2/` and so on.

    Test files may be missing, and one of MNLI's two dev files. Rows that the benchmark itself
    leaves out are counted in the notes, as are empty texts of dev and test files and ids that occur
    twice. Raises InputError, with file and line, for files that are missing or not as the official
    ones are.
    """
    notes: Counter[str] = Counter()
    train = _read_all(task, {"train": task.train}, "train", folder, notes)
    dev = _read_all(task, task.dev, "dev", folder, notes)
    test = _read_all(task, task.test, "test", folder, notes)
    return TaskData(task.labels, train["train"], dev, test, dict(notes))


def _read_all(
    task: GlueTask, splits: Mapping[str, Split], kind: Kind, folder: Path, notes: Counter[str]
) -> dict[str, list[Example]]:
    found = {}
    for split, source in splits.items():
        for path in (folder / name for name in source.files):
            if path.exists():
                found[split] = _read(task, os.fspath(path), kind, notes)
                break
    if found or kind == "test":
        return found
    place = folder / task.folder
    names = storage.names(place)
    holder, held = (place, names) if names else (folder, storage.names(folder))
    raise InputError(
        f"{task.title}: {' or '.join(str(folder / s.files[0]) for s in splits.values())} is "
        f"missing; {holder} holds {', '.join(held) or 'nothing'}. Get the official files from "
        f"{task.download}, or set finetune.source=tfds"
    )


def _read(task: GlueTask, path: str, kind: Kind, notes: Counter[str]) -> list[Example]:
    name = os.path.basename(path)
    examples: list[Example] = []
    first_at: dict[str, str] = {}
    indices = {label: index for index, label in enumerate(task.labels)}
    for row in _rows(task, path, kind, notes):
        if task.name == "mnli" and row.label == _NO_LABEL:
            notes[f"{name}: rows without an agreed label, left out"] += 1
            continue
        label = None if row.label is None else _label(row.label, indices, row.where)
        if not line_reader.keeps(
            row.texts, name, row.where, notes, train=kind == "train", leave_out=task.broken_rows
        ):
            continue
        if not row.id:
            raise InputError(f"{row.where}: the id (column {task.id!r}) is empty")
        first = first_at.setdefault(row.id, row.where)
        if first != row.where:
            if kind == "test":  # the GLUE server would refuse the predictions, hours later
                raise InputError(f"{row.where}: the id {row.id!r} is already that of {first}")
            notes[f"{name}: ids that occur twice"] += 1
        examples.append(Example(row.id, row.texts[0], (*row.texts, None)[1], label, row.where))
    if not examples:
        raise InputError(f"{path} holds no {'training ' if kind == 'train' else ''}rows")
    return examples


def _rows(task: GlueTask, path: str, kind: Kind, notes: Counter[str]) -> Iterator[_Row]:
    numbered = line_reader.numbered(path)
    header: Sequence[str] = task.header if kind != "test" else ()
    if not header:
        first = next(numbered, None)
        if first is None:
            raise InputError(f"{path} is empty")
        header = first[1].split("\t")
    columns = [task.first] if task.second is None else [task.first, task.second]
    texts_at = [line_reader.position(column, header, f"{path}:1") for column in columns]
    label_at = None if kind == "test" else line_reader.position(task.label, header, f"{path}:1")
    id_at = header.index(task.id) if task.id in header else None
    rows = ((number, line.split("\t")) for number, line in numbered if line)
    for row, (number, fields) in enumerate(rows):
        where = f"{path}:{number}"
        if task.broken_rows and kind != "test" and len(fields) < len(header):
            # Some of QQP's questions hold a line feed, which cuts their row in two. The reader of
            # the benchmark's authors leaves both pieces out, and published metrics do without them.
            notes[f"{os.path.basename(path)}: rows with too few columns, left out"] += 1
            continue
        line_reader.check_columns(len(fields), len(header), where)
        yield _Row(
            str(row) if id_at is None else fields[id_at],
            [fields[at] for at in texts_at],
            None if label_at is None else fields[label_at],
            where,
        )


def _label(text: str, indices: dict[str, int], where: str) -> float:
    return (
        line_reader.class_index(text, indices, where)
        if indices
        else line_reader.score(text, where, *SCORES)
    )
