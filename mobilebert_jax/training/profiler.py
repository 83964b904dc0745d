"""A trace of a few chosen steps, for TensorBoard's profiler or Perfetto."""

import re
from pathlib import Path
from typing import NamedTuple

import jax

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError


class Window(NamedTuple):
    """Steps to trace, counted from the first that a start of a stage takes: `first` to `last - 1`.

    The first step is compiled and says little.
    """

    first: int
    last: int


def parse(text: str) -> Window | None:
    """Returns the window that `FIRST:LAST` names, None for nothing; raises InputError."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"--profile={text} must be FIRST:LAST, two step numbers such as 20:25")
    return Window(int(match[1]), int(match[2]))


class Profiler:
    """Writes the trace of `window` below `directory`; does nothing without a window."""

    def __init__(self, window: Window | None, directory: Path) -> None:
        self._window, self._folder = window, storage.Written(directory)
        self._running = False

    def before(self, number: int) -> None:
        """To be called before the step that is the `number`th (from 0) of this start."""
        if self._window is None:
            return
        if number == self._window.first:
            jax.profiler.start_trace(str(self._folder.local))
            self._running = True
        elif number == self._window.last:
            self.close()

    def close(self) -> None:
        """Ends a trace that is still running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            self._folder.keep()
