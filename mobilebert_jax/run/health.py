"""Ways a training run ends other than by finishing, each with its exit code.

0 done; 2 mistake in configuration or input (`config.InputError`); 3 numerics (`NonFinite`); 42
saved and preempted (`Preempted`).
"""

import json
import signal
import types
from pathlib import Path

INPUT_ERROR_CODE = 2
NON_FINITE_CODE = 3
PREEMPTED_CODE = 42


class NonFinite(Exception):
    """Too many steps had a loss or gradient that is not finite."""


class Preempted(Exception):
    """The process was asked to stop, and its state is saved."""


class NonFiniteSteps:
    """Counts steps that were not applied, in a file that outlives the process."""

    def __init__(self, path: Path, limit: int):
        self._path, self._limit = path, limit

    def look_at(self, row: dict[str, float] | None) -> None:
        """Notes the step of a published `row` if it was not applied; raises NonFinite at the limit.

        The number is enough to make the step's batch again, for a batch is a function of it.
        """
        if row is None or not row["nonfinite"]:
            return
        steps = {int(float(json.loads(line)["step"])) for line in self._lines()} | {
            int(row["step"])
        }
        with self._path.open("a") as file:
            file.write(json.dumps({name: str(value) for name, value in row.items()}) + "\n")
        if len(steps) >= self._limit:
            raise NonFinite(
                f"{len(steps)} steps had a loss or gradient that is not finite and were not "
                f"applied (steps {', '.join(map(str, sorted(steps)[-10:]))}); see {self._path}. "
                "A lower peak_rate, or precision='float32', is the usual remedy; more are "
                "tolerated with execution.max_nonfinite"
            )

    def _lines(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []


class StopRequest:
    """Turns SIGTERM into a flag that the train loop looks at between two steps."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> "StopRequest":
        self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self.received = True
