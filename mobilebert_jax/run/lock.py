"""The lock on a run's folder: two runs that write the same checkpoints would ruin each other."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from mobilebert_jax.config import InputError
from mobilebert_jax.partition import processes


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Holds the lock of `directory` in process 0; it ends with the process, however that ends.

    Raises InputError in every process when another run holds it.
    """
    with contextlib.ExitStack() as stack:
        processes.agree("lock", lambda: _take(directory, stack))
        yield


def _take(directory: Path, stack: contextlib.ExitStack) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    file = stack.enter_context((directory / ".lock").open("a+"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise InputError(
            f"{directory} is being written by another run ({file.read().strip() or 'unknown'}); "
            "stop that one, or give this one another folder with --config.name=NAME"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
