"""Watching over a run: steps that are not applied, requests to stop, hangs."""

import faulthandler
import json
import os
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils

from mobilebert_jax import storage
from mobilebert_jax.distributed import processes
from mobilebert_jax.exit_codes import PEER_LOST_CODE, NonFinite


class SkippedSteps:
    """Counts steps that were not applied, in a file that outlives the process."""

    def __init__(self, path: Path, limit: int):
        self._path, self._limit = path, limit

    def look_at(self, row: dict[str, float] | None) -> None:
        """Notes the step of a published `row` if it was not applied.

        Its number is enough to make the step's batch again, for a batch is a function of it.
        Raises NonFinite when `limit` steps were not finite; spikes do not count towards it.
        """
        if row is None or not (row["nonfinite"] or row.get("spike")):
            return
        if processes.is_first():
            lines = storage.Lines(self._path)
            lines.append(json.dumps({name: str(value) for name, value in row.items()}) + "\n")
            lines.keep()
        steps = self.nonfinite() | ({int(row["step"])} if row["nonfinite"] else set())
        if len(steps) >= self._limit:
            numbers = ", ".join(map(str, sorted(steps)[-10:]))
            raise NonFinite(
                f"{len(steps)} steps had a loss, gradient or update that is not finite and were "
                f"not applied (steps {numbers}); see {self._path}. A lower peak_learning_rate, or "
                "precision='float32', is the usual remedy; more are tolerated with "
                "execution.max_nonfinite"
            )

    def check_some_applied(self, steps: int) -> None:
        """Raises NonFinite when none of the stage's `steps` was applied, however few they are."""
        if steps and len(self.nonfinite()) >= steps:
            raise NonFinite(
                f"no step of {steps} was applied: the loss, gradient or update of each was not "
                f"finite; see {self._path}. A lower peak_learning_rate is the usual remedy"
            )

    def nonfinite(self) -> set[int]:
        """Returns which steps were not finite."""
        rows = self._rows()
        return {int(float(row["step"])) for row in rows if float(row["nonfinite"])}

    def spikes(self) -> int:
        """Returns how many steps the gate against spikes has left out."""
        return len({row["step"] for row in self._rows() if float(row.get("spike", 0))})

    def _rows(self) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]


class StopRequest:
    """Turns SIGTERM and Ctrl-C into an answer that the train loop asks for between two steps.

    A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self._received = False
        self._previous: dict[int, Any] = {}
        # With several processes JAX takes the signal, and tells all of them at the same step.
        self._alone = jax.process_count() == 1

    def reached(self, step: int) -> bool:
        """Whether to save and stop after `step`; the same answer in every process."""
        if self._alone:
            return self._received
        return bool(multihost_utils.reached_preemption_sync_point(step))

    def __enter__(self) -> "StopRequest":
        if self._alone:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self._received = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("saving; Ctrl-C again ends at once", file=sys.stderr)


class Watchdog:
    """Ends the process when nothing has been done for `limit_s`: a hang would last for ever.

    A collective whose other side is gone or stuck blocks outside of Python, where no exception
    reaches it. The stacks of all threads are printed first, then the process ends with a code that
    the supervisor answers with a restart.
    """

    def __init__(self, limit_s: float, what: str):
        self._limit_s, self._what = limit_s, what
        self._last, self._doing = time.monotonic(), "start"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self, doing: str) -> None:
        """Notes that `doing` begins now."""
        self._last, self._doing = time.monotonic(), doing

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(min(self._limit_s / 10, 5.0)):
            silent = time.monotonic() - self._last
            if silent > self._limit_s:
                others = processes.hosts()
                abort(
                    f"{self._what}: nothing has moved for {silent:.0f} s at {self._doing}"
                    + (f"; it may wait for {others}" if others else "")
                )


def abort(message: str) -> None:
    """Prints `message` and the stacks of all threads, and ends the process at once with 134.

    Nothing is waited for: other threads may hang, and leaving a cluster in order needs the others.
    """
    print(f"error: {message}", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.flush()
    os._exit(PEER_LOST_CODE)
