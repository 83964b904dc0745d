"""Waits for the processes that a test has started, and those that they have."""

import os
import time

SECONDS = 30.0


def ends(group: int) -> bool:
    """Returns whether no process of `group` is left within `SECONDS`."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
