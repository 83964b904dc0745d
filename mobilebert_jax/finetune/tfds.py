"""GLUE and SQuAD out of TFDS, in the form of their official files.

TFDS shuffles the records it stores: GLUE's rows are put back into the order of the files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data.tfds_source import prepared
from mobilebert_jax.finetune import line_reader
from mobilebert_jax.finetune.examples import Example, TaskData
from mobilebert_jax.finetune.glue.tasks import SCORES, GlueTask, Split


def read_glue(task: GlueTask) -> TaskData[Example]:
    """Reads a task of GLUE from TFDS, downloaded first if need be; rows are called as in the files.

    Raises InputError if the dataset cannot be had or is not as expected. Only MNLI's diagnostic
    set, a dataset of its own, may be missing, of which the notes then tell.
    """
    needed = [task.train.tfds_split, *(source.tfds_split for source in task.dev.values())]
    builder = prepared(task.tfds, needed)
    notes: Counter[str] = Counter()
    train = _read(task, builder, task.train, "train", notes)
    dev = {name: _read(task, builder, source, "dev", notes) for name, source in task.dev.items()}
    test = {}
    for name, source in task.test.items():
        if source.dataset != task.tfds:
            try:
                other = prepared(source.dataset, [source.tfds_split])
            except InputError as error:
                notes[f"test set {name!r} left out: {error}"] += 1
                continue
            test[name] = _read(task, other, source, "test", notes)
        elif source.tfds_split in builder.info.splits:
            test[name] = _read(task, builder, source, "test", notes)
    return TaskData(task.labels, train, dev, test, dict(notes))


def read_squad(version: Literal["v1.1", "v2.0"]) -> dict[str, dict[str, Any]]:
    """Returns SQuAD's `train` and `dev` questions from TFDS, each as the JSON of its official file.

    Questions are put under their contexts, and these under their titles, in the order in which they
    come. Raises InputError if the dataset cannot be had.
    """
    builder = prepared(f"squad/{version}", ("train", "validation"))
    return {
        "train": _squad(builder, "train", version),
        "dev": _squad(builder, "validation", version),
    }


def _records(builder: Any, split: str) -> Sequence[Mapping[str, Any]]:
    source = builder.as_data_source(split=split)
    # All at once takes half the time of one after the other.
    found: Sequence[Mapping[str, Any]] = source.__getitems__(list(range(len(source))))
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# ---- GLUE -------------------------------------------------------------------------------------


def _read(
    task: GlueTask,
    builder: Any,
    source: Split,
    kind: Literal["train", "dev", "test"],
    notes: Counter[str],
) -> list[Example]:
    columns = [task.first] if task.second is None else [task.first, task.second]
    columns = list(task.tfds_texts) or columns
    for column in (*columns, "label", "idx"):
        line_reader.position(column, list(builder.info.features), f"tfds:{source.dataset}")
    classes = _classes(task, builder) if task.labels else {}
    rows = sorted(_records(builder, source.tfds_split), key=lambda record: record["idx"])
    examples = []
    for record in rows:
        where = f"{builder.info.full_name}:{source.tfds_split}:{record['idx']}"
        texts = [_text(record[column]) for column in columns]
        label = None if kind == "test" else _label(record["label"], classes, where)
        if line_reader.keeps(
            texts,
            source.tfds_split,
            where,
            notes,
            train=kind == "train",
            leave_out=task.broken_rows,
        ):
            identity = str(record["idx"])
            examples.append(Example(identity, texts[0], (*texts, None)[1], label, where))
    if not examples:
        raise InputError(f"tfds:{source.dataset} holds no rows in the split {source.tfds_split!r}")
    return examples


def _classes(task: GlueTask, builder: Any) -> dict[int, int]:
    """From TFDS's number of a class to the task's."""
    names = list(builder.info.features["label"].names)
    expected = task.tfds_labels or task.labels
    if sorted(names) != sorted(expected):
        raise InputError(
            f"tfds:{builder.info.full_name} has the classes {', '.join(names)}, not those of "
            f"{task.title}: {', '.join(expected)}"
        )
    return {number: expected.index(name) for number, name in enumerate(names)}


def _label(value: Any, classes: Mapping[int, int], where: str) -> float:
    if not classes:
        # The shortest text of a float32 is the number as the official file writes it.
        return line_reader.score(str(np.float32(value)), where, *SCORES)
    if int(value) not in classes:
        raise InputError(f"{where}: the row has no label (TFDS says {value})")
    return classes[int(value)]


# ---- SQuAD ------------------------------------------------------------------------------------


def _squad(builder: Any, split: str, version: str) -> dict[str, Any]:
    articles: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for record in _records(builder, split):
        contexts = articles.setdefault(_text(record["title"]), {})
        contexts.setdefault(_text(record["context"]), []).append(_question(record))
    data = [
        {
            "title": title,
            "paragraphs": [{"context": context, "qas": qas} for context, qas in contexts.items()],
        }
        for title, contexts in articles.items()
    ]
    return {"version": version if version == "v2.0" else version.removeprefix("v"), "data": data}


def _question(record: Mapping[str, Any]) -> dict[str, Any]:
    question: dict[str, Any] = {
        "id": _text(record["id"]),
        "question": _text(record["question"]),
        "answers": _answers(record["answers"]),
    }
    if "is_impossible" in record:
        question["is_impossible"] = bool(record["is_impossible"])
        question["plausible_answers"] = _answers(record["plausible_answers"])
    return question


def _answers(answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    texts, starts = answers["text"], answers["answer_start"]
    return [
        {"text": _text(text), "answer_start": int(start)}
        for text, start in zip(texts, starts, strict=True)
    ]
