"""Attacks on one reader until its share of the time is spent, and what they came to.

A reader may give a result or refuse with an InputError. Any other exception, an attack that takes
longer than `PATIENCE`, and a result that its test finds wrong are failures.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from mobilebert_jax.config.schema import InputError

SECONDS = float(os.environ.get("FUZZ_SECONDS", "120"))
"""Time for all readers together, counted on one core."""
FIRST_SEED = int(os.environ.get("FUZZ_SEED", "0"))
PATIENCE = 60
"""Seconds that one attack may take."""
AT_A_TIME = 25


class TooSlow(Exception):
    """An attack took longer than `PATIENCE`."""


def attack(
    request: pytest.FixtureRequest,
    cases: st.SearchStrategy[Any],
    attempt: Callable[[Any], object],
    refusals: tuple[type[Exception], ...] = (InputError,),
) -> None:
    """Tries `attempt` on cases until the test's share of `SECONDS` is spent, at least 25 times.

    The same seeds draw the same cases; how many are tried depends on the machine.
    """
    tried = refused = 0
    share = SECONDS / request.config.stash[SHARES]
    stop = time.monotonic() + share

    def once(case: Any) -> None:
        nonlocal tried, refused
        tried += 1
        with _patience():
            try:
                attempt(case)
            except refusals:
                refused += 1

    for seed in itertools.count(FIRST_SEED):
        chosen = hypothesis.settings(
            max_examples=AT_A_TIME,
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        hypothesis.seed(seed)(chosen(hypothesis.given(cases)(once)))()
        if time.monotonic() > stop:
            break
    request.node.user_properties.append(("fuzz", (tried, refused)))


SHARES: pytest.StashKey[int] = pytest.StashKey()
"""Number of readers among which `SECONDS` are divided."""


@contextmanager
def _patience() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"an attack took longer than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
