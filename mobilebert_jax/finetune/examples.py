"""What every reader of a task returns: one form for files of any kind, before tokens exist."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar


class Example(NamedTuple):
    """One row of a sentence task."""

    id: str
    """What the task's submission file calls the row."""
    first: str
    second: str | None
    """The second text of a pair; None in tasks of single texts."""
    label: float | None
    """Index of the class, or the score in a task of numbers; None where the row has no label."""
    where: str
    """`file:line`, or the record of a dataset, for messages."""


class Tagged(NamedTuple):
    """One sentence of a token classification task."""

    words: tuple[str, ...]
    tags: tuple[int, ...]
    """Index of each word's tag; empty where the file has none."""
    where: str


Row = TypeVar("Row", Example, Tagged)


@dataclasses.dataclass(frozen=True)
class TaskData(Generic[Row]):
    """All splits of one task, as read.

    `dev` and `test` are by name: most tasks have one of each, MNLI has `matched` and `mismatched`.
    """

    labels: tuple[str, ...]
    """Names of the classes or tags in the order of their indices; empty in tasks of numbers."""
    train: Sequence[Row]
    dev: Mapping[str, Sequence[Row]]
    test: Mapping[str, Sequence[Row]]
    notes: Mapping[str, int]
    """Oddities of the files that are counted and reported instead of refused."""
