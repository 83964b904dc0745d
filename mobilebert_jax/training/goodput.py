"""Where the wall time of a stage went, over all its starts: what was training, and what was not.

Each start appends cumulative rows to goodput.jsonl, so that a start that was killed counts too.
"""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobilebert_jax import storage
from mobilebert_jax.distributed import processes
from mobilebert_jax.training.metric_log import read_rows

KINDS = ("restore", "compile", "input", "save", "evaluation")
"""What is not training; the rest of the time is `step`."""


class Goodput:
    """The time of one start of a stage, from its creation on."""

    def __init__(self, directory: Path) -> None:
        self._rows = storage.Lines(directory / "goodput.jsonl")
        self._began = time.monotonic()
        self._seconds = dict.fromkeys(KINDS, 0.0)
        # Wall time and process number, because a clock may jump back and a number may come again.
        self._start = {"start": time.time(), "process": os.getpid()}
        self.first_step = 0

    @contextlib.contextmanager
    def spent(self, kind: str) -> Iterator[None]:
        """Counts the time inside as `kind` instead of as training."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[kind] += time.monotonic() - began

    def write(self, step: int) -> None:
        """Notes that `step` is done, and the time until now."""
        if not processes.is_first():
            return
        total = time.monotonic() - self._began
        training = total - sum(self._seconds.values())
        row = {
            **self._start,
            "first_step": self.first_step,
            "step": step,
            "total": total,
            **self._seconds,
            "training": training,
        }
        self._rows.append(json.dumps(row) + "\n")

    def keep(self) -> None:
        """Returns when what was written is where a new start finds it."""
        self._rows.keep()


def summary(directory: Path) -> dict[str, Any]:
    """Returns the seconds of all starts by kind, and the steps that were lost and done again.

    `share` is the part of the time spent in steps that counted. Lost steps are those known of: the
    rows written before a kill, hence at least so many.
    """
    last: dict[tuple[float, float], dict[str, float]] = {}
    for row in read_rows(directory / "goodput.jsonl"):
        last[row["start"], row["process"]] = row
    starts = list(last.values())
    seconds = {kind: sum(row[kind] for row in starts) for kind in (*KINDS, "training", "total")}
    done = sum(row["step"] + 1 - row["first_step"] for row in starts)
    repeated = sum(
        max(0.0, before["step"] + 1 - after["first_step"])
        for before, after in itertools.pairwise(starts)
    )
    kept = seconds["training"] * (1 - repeated / done) if done else 0.0
    return {
        "starts": len(starts),
        "repeated_steps": int(repeated),
        "seconds": {kind: round(value, 3) for kind, value in seconds.items()},
        "share": kept / seconds["total"] if seconds["total"] else 0.0,
    }
