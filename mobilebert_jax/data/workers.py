"""Worker processes that share units of work, and that never outlive the process they work for."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Progress = Callable[[str, int, int], None]
"""Told (phase, units done, units in all)."""
Work = TypeVar("Work")


class Workers:
    """Applies functions to units of work; made by `started`."""

    def __init__(self, pool: ProcessPoolExecutor | None, progress: Progress):
        self._pool = pool
        self.progress = progress

    def map(
        self, function: Callable[[Work], Any], units: Sequence[Work], phase: str, before: int = 0
    ) -> list[Any]:
        """Returns `function(unit)` in the order of `units`; `before` more count as done already.

        The first exception of a unit is raised here, after the units under way have ended.
        """
        total = before + len(units)
        self.progress(phase, before, total)
        results: dict[int, Any] = {}
        for i, result in self._results(function, units):
            results[i] = result
            self.progress(phase, before + len(results), total)
        return [results[i] for i in range(len(units))]

    def _results(
        self, function: Callable[[Work], Any], units: Sequence[Work]
    ) -> Iterator[tuple[int, Any]]:
        if self._pool is None:
            for i, unit in enumerate(units):
                yield i, function(unit)
            return
        futures = {self._pool.submit(function, unit): i for i, unit in enumerate(units)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            error.add_note(
                "a worker process was killed, most often for want of memory; finished units are "
                "kept: run again, with fewer execution.workers if it happens again"
            )
            raise


@contextlib.contextmanager
def started(count: int, progress: Progress) -> Iterator[Workers]:
    """Starts `count` processes, or one for each core available to this process when it is 0.

    One worker is this process itself. The processes are spawned, not forked: forking a process in
    which JAX has started threads can deadlock.
    """
    count = count or available_cores()
    if count == 1:
        yield Workers(None, progress)
        return
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )
    try:
        yield Workers(pool, progress)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    """Returns how many cores this process may use, which in a container can be fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # systems that cannot bind a process to cores


def _begin() -> None:
    """Prepares a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C and stops its workers
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    # Tokens are lists by the million and hold no cycles: looking for these every 700 lists, as
    # Python does, takes an eighth of the time.
    gc.set_threshold(100_000)
    end_with_parent()


def end_with_parent() -> None:
    """Has this process end when its parent is gone; after a SIGKILL nothing else would."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
