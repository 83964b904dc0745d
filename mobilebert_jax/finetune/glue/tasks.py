"""The nine tasks of GLUE and its diagnostic set: files, columns, classes, metrics (Wang et al.).

Files and columns are those of the benchmark's download, splits those of TFDS's `glue/*`.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from mobilebert_jax.finetune.glue import submission

SCORES = (0.0, 5.0)
"""Range of STS-B's scores."""

_ZIP = "https://dl.fbaipublicfiles.com/glue/data/"
_SCRIPT = "the script download_glue_data.py of https://github.com/nyu-mll/GLUE-baselines"
"""Microsoft's file for MRPC has to be split into train and dev, which this script does."""


class Split(NamedTuple):
    """Where one split of a task is."""

    files: tuple[str, ...]
    """Below the folder of all tasks; the first one that is there counts."""
    dataset: str
    """Name in TFDS."""
    tfds_split: str


@dataclasses.dataclass(frozen=True)
class GlueTask:
    """One task of GLUE."""

    name: str
    title: str
    folder: str
    """In the benchmark's download."""
    tfds: str
    """Name in TFDS."""
    first: str
    """Column of the first text."""
    second: str | None
    """Column of the second text; None in tasks of single sentences."""
    label: str
    """Column of the label in train and dev files; test files have none."""
    labels: tuple[str, ...]
    """Classes as the files and the GLUE server call them; empty for STS-B, a task of numbers."""
    metrics: tuple[str, ...]
    """Figures of the benchmark, the one in the paper's table first."""
    download: str
    tfds_labels: tuple[str, ...] = ()
    """TFDS's names for `labels`, in the same order; empty where they are the same."""
    tfds_texts: tuple[str, ...] = ()
    """TFDS's features for the texts where they are not called like the columns."""
    id: str = "index"
    """Column of what the server calls a row; files without it count their rows from 0."""
    header: tuple[str, ...] = ()
    """Columns of train and dev files that do not name them themselves."""
    dev_splits: tuple[str, ...] = ("dev",)
    test_splits: tuple[str, ...] = ("test",)
    broken_rows: bool = False
    """Whether the official training files have rows without one of the texts."""

    @property
    def train(self) -> Split:
        return Split((f"{self.folder}/train.tsv",), self.tfds, "train")

    @property
    def dev(self) -> Mapping[str, Split]:
        return {split: self._part("dev", "validation", split) for split in self.dev_splits}

    @property
    def test(self) -> Mapping[str, Split]:
        found = {split: self._part("test", "test", split) for split in self.test_splits}
        return {**found, "ax": _DIAGNOSTIC} if self.name == "mnli" else found

    @property
    def submission(self) -> Mapping[str, str]:
        """The GLUE server's name for the predictions of each test split."""
        return {split: submission.FILES[self.name, split] for split in self.test}

    def _part(self, file: str, tfds_split: str, split: str) -> Split:
        part = "" if split == file else f"_{split}"
        return Split((f"{self.folder}/{file}{part}.tsv",), self.tfds, f"{tfds_split}{part}")


_DIAGNOSTIC = Split(
    ("diagnostic/diagnostic.tsv", "AX/diagnostic.tsv", "AX/AX.tsv", "AX/test.tsv"),
    "glue/ax",
    "test",
)
"""Sentence pairs in MNLI's classes, without a training set of their own."""

_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")

_TASKS = (
    GlueTask(
        name="cola",
        title="CoLA",
        folder="CoLA",
        tfds="glue/cola",
        first="sentence",
        second=None,
        label="label",
        labels=_BINARY,
        metrics=("matthews",),
        download=f"{_ZIP}CoLA.zip",
        tfds_labels=("unacceptable", "acceptable"),
        header=("source", "label", "star", "sentence"),
    ),
    GlueTask(
        name="sst-2",
        title="SST-2",
        folder="SST-2",
        tfds="glue/sst2",
        first="sentence",
        second=None,
        label="label",
        labels=_BINARY,
        metrics=("accuracy",),
        download=f"{_ZIP}SST-2.zip",
        tfds_labels=("negative", "positive"),
    ),
    GlueTask(
        name="mrpc",
        title="MRPC",
        folder="MRPC",
        tfds="glue/mrpc",
        first="#1 String",
        second="#2 String",
        label="Quality",
        labels=_BINARY,
        metrics=("f1", "accuracy"),
        download=_SCRIPT,
        tfds_labels=("not_equivalent", "equivalent"),
        tfds_texts=("sentence1", "sentence2"),
    ),
    GlueTask(
        name="sts-b",
        title="STS-B",
        folder="STS-B",
        tfds="glue/stsb",
        first="sentence1",
        second="sentence2",
        label="score",
        labels=(),
        metrics=("spearman", "pearson"),
        download=f"{_ZIP}STS-B.zip",
    ),
    GlueTask(
        name="qqp",
        title="QQP",
        folder="QQP",
        tfds="glue/qqp",
        first="question1",
        second="question2",
        label="is_duplicate",
        labels=_BINARY,
        metrics=("f1", "accuracy"),
        download=f"{_ZIP}QQP.zip",
        tfds_labels=("not_duplicate", "duplicate"),
        id="id",
        broken_rows=True,
    ),
    GlueTask(
        name="mnli",
        title="MNLI",
        folder="MNLI",
        tfds="glue/mnli",
        first="sentence1",
        second="sentence2",
        label="gold_label",
        labels=("contradiction", "entailment", "neutral"),
        metrics=("accuracy",),
        download=f"{_ZIP}MNLI.zip (diagnostic set: {_ZIP}AX.tsv)",
        tfds_texts=("premise", "hypothesis"),
        dev_splits=("matched", "mismatched"),
        test_splits=("matched", "mismatched"),
    ),
    GlueTask(
        name="qnli",
        title="QNLI",
        folder="QNLI",
        tfds="glue/qnli",
        first="question",
        second="sentence",
        label="label",
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        download=f"{_ZIP}QNLIv2.zip",
    ),
    GlueTask(
        name="rte",
        title="RTE",
        folder="RTE",
        tfds="glue/rte",
        first="sentence1",
        second="sentence2",
        label="label",
        labels=_ENTAILMENT,
        metrics=("accuracy",),
        download=f"{_ZIP}RTE.zip",
    ),
    GlueTask(
        name="wnli",
        title="WNLI",
        folder="WNLI",
        tfds="glue/wnli",
        first="sentence1",
        second="sentence2",
        label="label",
        labels=_BINARY,
        metrics=("accuracy",),
        download=f"{_ZIP}WNLI.zip",
        tfds_labels=_ENTAILMENT[::-1],
    ),
)

GLUE: dict[str, GlueTask] = {task.name: task for task in _TASKS}
"""By the name in the configuration."""
