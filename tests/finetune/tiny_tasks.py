"""The tasks of GLUE and SQuAD in miniature: a few made-up rows, as official files and as datasets.

The label of a row can be told from its first word.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobilebert_jax.finetune.glue.tasks import GLUE, GlueTask
from tests.finetune import datasets

SWEEP: dict[str, Any] = {
    "stages": ("finetune",),
    "finetune__max_seq_length": 16,
    "finetune__squad__max_seq_length": 16,
    "finetune__squad__doc_stride": 4,
    "finetune__squad__max_query_length": 4,
    "finetune__search__batch_sizes": (8,),
    "finetune__search__learning_rates": (1e-2,),
    "finetune__search__epochs": (1,),
    "finetune__search__seeds": (0,),
}
"""Settings of fine-tuning alone, of few steps on short rows."""

WORDS = ("kalo", "miren", "stavo", "tushi", "peldan", "grofe", "shika", "renlo")
ROWS = {"train": 16, "dev": 6, "test": 5}
_DATASETS = {
    "cola": (["sentence"], ["unacceptable", "acceptable"]),
    "sst-2": (["sentence"], ["negative", "positive"]),
    "mrpc": (["sentence1", "sentence2"], ["not_equivalent", "equivalent"]),
    "sts-b": (["sentence1", "sentence2"], None),
    "qqp": (["question1", "question2"], ["not_duplicate", "duplicate"]),
    "mnli": (["premise", "hypothesis"], ["entailment", "neutral", "contradiction"]),
    "qnli": (["question", "sentence"], ["entailment", "not_entailment"]),
    "rte": (["sentence1", "sentence2"], ["entailment", "not_entailment"]),
    "wnli": (["sentence1", "sentence2"], ["not_entailment", "entailment"]),
}


def _rows(task: GlueTask, split: str, count: int) -> Iterator[tuple[str, str, Any]]:
    """Yields the two texts and the label of each row; the label is a name, or STS-B's score."""
    generator = random.Random(f"{task.name} {split}")
    for index in range(count):
        label: Any = task.labels[index % len(task.labels)] if task.labels else index % 6 * 0.75
        number = task.labels.index(label) if task.labels else index % 6
        texts = [" ".join(generator.choices(WORDS, k=3)) for _ in range(2)]
        yield f"{WORDS[number]} {texts[0]}", texts[1], label


def write_glue(folder: Path) -> None:
    """Writes the official files of all tasks below `folder`."""
    for task in GLUE.values():
        _write(folder, task, task.train.files[0], "train", ROWS["train"])
        for split, source in task.dev.items():
            _write(folder, task, source.files[0], split, ROWS["dev"])
        for split, source in task.test.items():
            _write(folder, task, source.files[0], f"test {split}", ROWS["test"], labelled=False)


def _write(
    folder: Path, task: GlueTask, name: str, split: str, count: int, labelled: bool = True
) -> None:
    rows = list(_rows(task, split, count))
    columns = ["index", task.first, *([task.second] if task.second else [])]
    columns += [task.label] if labelled else []
    named = [
        dict(zip(("index", task.first, task.second or "", task.label), (n, *row), strict=True))
        if task.second
        else {"index": n, task.first: row[0], task.label: row[2]}
        for n, row in enumerate(rows)
    ]
    header = "\t".join(columns) + "\n"
    if task.name == "cola" and labelled:
        columns, header = ["source", task.label, "star", task.first], ""
    if task.name == "qqp":
        columns = ["id", "qid1", "qid2", *columns[1:]] if labelled else ["id", *columns[1:]]
        header = "\t".join(columns) + "\n"
    lines = [
        "\t".join(str(row["index"] if c in ("id", "qid1") else row.get(c, "-")) for c in columns)
        for row in named
    ]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "".join(f"{line}\n" for line in lines))


def prepare_glue(folder: Path) -> None:
    """Makes the datasets of all tasks in `folder`, where TFDS looks for them."""
    for task in GLUE.values():
        texts, classes = _DATASETS[task.name]
        splits = {"train": ("train", ROWS["train"])}
        splits |= {source.tfds_split: (s, ROWS["dev"]) for s, source in task.dev.items()}
        tests = {source.tfds_split: (f"test {s}", ROWS["test"]) for s, source in task.test.items()}
        if task.name == "mnli":
            ax = _dataset_rows(task, "test ax", ROWS["test"], None)
            datasets.make_glue(folder, "ax", texts, classes, {"test": ax})
            del tests["test"]
        rows = {
            **{s: _dataset_rows(task, n, k, _numbers(task)) for s, (n, k) in splits.items()},
            **{s: _dataset_rows(task, n, k, None) for s, (n, k) in tests.items()},
        }
        config = task.tfds.removeprefix("glue/")
        datasets.make_glue(folder, config, texts, classes, rows)


def _numbers(task: GlueTask) -> dict[str, int]:
    """The dataset's number of each of the files' class names."""
    classes = _DATASETS[task.name][1] or []
    names = task.tfds_labels or task.labels
    return {label: classes.index(n) for label, n in zip(task.labels, names, strict=True)}


def _dataset_rows(
    task: GlueTask, split: str, count: int, numbers: dict[str, int] | None
) -> list[tuple[Any, ...]]:
    found = []
    for index, (first, second, label) in enumerate(_rows(task, split, count)):
        texts = (first, second) if task.second else (first,)
        value = -1 if numbers is None else numbers[label] if task.labels else label
        found.append((*texts, value, index))
    return found


def squad(version: str, split: str) -> dict[str, Any]:
    """Returns questions in the form of the official JSON; every third of v2.0 has no answer."""
    generator = random.Random(f"{version} {split}")
    paragraphs = []
    for number in range(4):
        context = " ".join(generator.choices(WORDS, k=9)) + "."
        questions: list[dict[str, Any]] = []
        for index in range(3):
            start = sum(len(word) + 1 for word in context.split()[: index + 1])
            answer = {"text": context.split()[index + 1], "answer_start": start}
            question: dict[str, Any] = {
                "id": f"{split}-{number}-{index}",
                "question": f"{WORDS[index]} {WORDS[number]}",
                "answers": [answer],
            }
            if version == "v2.0":
                question["is_impossible"] = index == 2
                question["answers"] = [] if index == 2 else [answer]
            questions.append(question)
        paragraphs.append({"context": context, "qas": questions})
    return {"version": version, "data": [{"title": "Words", "paragraphs": paragraphs}]}


def write_squad(folder: Path) -> None:
    """Writes the four official files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for version in ("v1.1", "v2.0"):
        for split in ("train", "dev"):
            (folder / f"{split}-{version}.json").write_text(json.dumps(squad(version, split)))


def prepare_squad(folder: Path) -> None:
    """Makes both datasets in `folder`, where TFDS looks for them."""
    for version in ("v1.1", "v2.0"):
        rows = {
            dataset_split: _squad_rows(version, squad(version, split))
            for dataset_split, split in (("train", "train"), ("validation", "dev"))
        }
        features = datasets.squad_features(version)
        datasets.make(folder, "squad", version, "3.0.0", features, rows)


def _squad_rows(version: str, content: dict[str, Any]) -> datasets.Rows:
    rows = []
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question["answers"]
                row = {
                    "id": question["id"],
                    "title": article["title"],
                    "context": paragraph["context"],
                    "question": question["question"],
                    "answers": {
                        "text": [answer["text"] for answer in answers],
                        "answer_start": [answer["answer_start"] for answer in answers],
                    },
                }
                if version == "v2.0":
                    row["is_impossible"] = question["is_impossible"]
                    row["plausible_answers"] = {"text": [], "answer_start": []}
                rows.append(row)
    return rows
