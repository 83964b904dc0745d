"""At which batch is a step fastest? Powers of two, until memory ends or nothing is gained."""

import math
import statistics
import time
from collections.abc import Callable, Mapping

GAIN = 1.03
"""Tokens/s over those of half the batch that make a search go on."""

WINDOWS = 5
WINDOW_SECONDS = 0.5

Tried = Mapping[int, float | None]
"""Batch -> sequences/s; None where it does not fit into memory."""


def next_batch(tried: Tried, first: int, most: int) -> int | None:
    """Returns the batch to be tried next, None when the search is over.

    From `first` upwards in doublings, up to `most`; downwards in halves where `first` does not fit.
    """
    if first not in tried:
        return first
    if tried[first] is None:
        smallest = min(tried)
        return smallest // 2 if tried[smallest] is None and smallest > 1 else None
    largest = max(tried)
    before, last = tried.get(largest // 2), tried[largest]
    slow = before is not None and last is not None and last < GAIN * before
    return None if last is None or slow or 2 * largest > most else 2 * largest


def best(tried: Tried) -> int | None:
    """Returns the fastest batch, None where none fits."""
    fitting = {batch: rate for batch, rate in tried.items() if rate is not None}
    return max(fitting, key=lambda batch: fitting[batch]) if fitting else None


def seconds_of_step(run: Callable[[int], None]) -> list[float]:
    """Returns the seconds of a step in each of five windows of half a second or more.

    Within a window steps follow each other as in training, where nobody waits for one.

    Args:
      run: takes that many steps, and returns when the device has finished the last.
    """
    run(2)
    began = time.perf_counter()
    run(1)
    steps = max(1, math.ceil(WINDOW_SECONDS / (time.perf_counter() - began)))
    windows = []
    for _ in range(WINDOWS):
        began = time.perf_counter()
        run(steps)
        windows.append((time.perf_counter() - began) / steps)
    return windows


def speed(windows: list[float], batch: int, length: int) -> dict[str, float]:
    """Returns a row's figures of speed: milliseconds (with range), sequences/s and tokens/s."""
    seconds = statistics.median(windows)
    return {
        "milliseconds": 1e3 * seconds,
        "fastest_milliseconds": 1e3 * min(windows),
        "slowest_milliseconds": 1e3 * max(windows),
        "sequences_per_s": batch / seconds,
        "tokens_per_s": batch * length / seconds,
    }
