"""What fine-tuning needs of a task of any kind: rows, and what a network's outputs mean."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.finetune.classification.target_scaling import UNCHANGED, Scale
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.objective.finetune import Kind

Outputs = Mapping[str, NDArray[np.float32]]
"""A network's outputs by split."""


READS: dict[Kind, Literal["first", "every"]] = {
    "classes": "first",
    "number": "first",
    "tags": "every",
    "span": "every",
}
"""What the output layer reads: the pooled first position, or every position."""


def outputs_of(kind: Kind, labels: Sequence[str]) -> int:
    """Returns the width of a task's output layer."""
    return {"number": 1, "span": 2}.get(kind, len(labels))


def digest_of(content: Any) -> str:
    """Returns the SHA-256 of texts and numbers in tuples, lists and dictionaries."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedTask:
    """A task as rows of token ids, its scores, and the files of its predictions."""

    name: str
    title: str
    kind: Kind
    labels: tuple[str, ...]
    """Names of classes or tags by index; empty for a number and a span."""
    length: int
    """Tokens of a row at most."""
    train: Rows
    dev: Mapping[str, Rows]
    test: Mapping[str, Rows]
    main: tuple[str, ...]
    """The metrics whose mean chooses the settings."""
    score: Callable[[Outputs], dict[str, float]]
    """From the outputs of the dev splits to metrics, in per cent."""
    write: Callable[[Path, Outputs, Outputs], None]
    """Writes what is predicted of the dev and of the test splits into a folder."""
    notes: Mapping[str, int]
    """Oddities of the files, and texts that were cut, by name."""
    score_test: Callable[[Outputs], dict[str, float]] = lambda outputs: {}
    """The same of the test splits whose rows have labels; these metrics choose nothing."""
    scale: Scale = UNCHANGED
    """Of the numbers that the rows hold as targets."""
    other_labels: tuple[str, ...] = ()
    """What `labels` are called elsewhere, in the same order."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What metrics and prediction files depend on beside the rows: settings of this kind of task,
    and digests of ids, words and answers, of which rows hold only the tokens."""

    @property
    def outputs(self) -> int:
        """Width of the task's output layer."""
        return outputs_of(self.kind, self.labels)

    @property
    def reads(self) -> Literal["first", "every"]:
        """See `READS`."""
        return READS[self.kind]

    @property
    def digest(self) -> str:
        """SHA-256 of all rows and labels."""
        found = hashlib.sha256(repr((self.kind, self.labels)).encode())
        # MNLI's dev and test splits have the same names.
        splits = {"train": self.train}
        splits |= {f"dev {name}": rows for name, rows in self.dev.items()}
        splits |= {f"test {name}": rows for name, rows in self.test.items()}
        for name, rows in splits.items():
            found.update(f"{name} {rows.digest}".encode())
        return found.hexdigest()
