"""Ways a run ends other than by finishing, each with its exit code.

0 done; 2 mistake in configuration or input (`config.schema.InputError`), or storage that takes no
more; 3 numerics; 42 saved and preempted; 130 interrupted by Ctrl-C where there was no step to
save; 134 another process was lost, or nothing moved any more.
This file must not import jax: the command line reads it before it knows that there is work.
"""

import errno
from typing import NamedTuple

from mobilebert_jax.config.schema import InputError

INPUT_ERROR_CODE = 2
NON_FINITE_CODE = 3
PREEMPTED_CODE = 42
INTERRUPTED_CODE = 130
PEER_LOST_CODE = 134

STORAGE_GAVE_OUT = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ESTALE,
)
"""The disk is full, read-only or gone, which no restart mends."""


class NonFinite(Exception):
    """Too many steps, or a parameter, were not finite."""


class Preempted(Exception):
    """The process was asked to stop, and its state is saved."""


class PeerLost(Exception):
    """Another process did not come to where it was waited for within the time limit."""


class Ending(NamedTuple):
    """How a process ends: its exit code and what it says."""

    code: int
    message: str


def printable(text: str) -> str:
    """Returns `text` with what could steer a terminal spelled out: names in files may hold it."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def ending_of(error: BaseException) -> Ending | None:
    """Returns how the process ends after `error`; None for an error of the program."""
    end = _ending_of(error)
    return end and Ending(end.code, printable(end.message))


def _ending_of(error: BaseException) -> Ending | None:
    match error:
        case InputError():
            return Ending(INPUT_ERROR_CODE, f"error: {error}")
        case NonFinite():
            return Ending(NON_FINITE_CODE, f"error: {error}")
        case Preempted():
            return Ending(PREEMPTED_CODE, f"stopped: {error}")
    if came_of_interrupt(error):
        # Between training stages, or a second time: what was finished and saved before is kept.
        message = "error: interrupted; the same command goes on from what is saved"
        return Ending(INTERRUPTED_CODE, message)
    if isinstance(error, OSError) and error.errno in STORAGE_GAVE_OUT:
        message = (
            f"error: {error}\nWhat was saved before is intact; once there is room to write, the "
            "same command goes on from there"
        )
        return Ending(INPUT_ERROR_CODE, message)
    return None


def came_of_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C is at the root of an error.

    asyncio answers Ctrl-C by cancelling what it waits for, and Orbax reports what was cancelled,
    the reading of a checkpoint, as an error of its own.
    """
    import asyncio  # takes a twentieth of a second to load, and only an error needs it

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt | asyncio.CancelledError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
