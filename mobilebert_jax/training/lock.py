"""The lock on a run's folder: two runs that write the same checkpoints would ruin each other.

On a disk the second run is refused. A bucket knows no lock that ends with its holder; there the
second run takes over, and the first one ends as soon as it sees that.
"""

import contextlib
import fcntl
import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.distributed import processes
from mobilebert_jax.exit_codes import INPUT_ERROR_CODE

WATCH_SECONDS = 20.0
"""Time between two looks at whose the folder in a bucket is."""


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Holds the lock of `directory` in process 0; it ends with the process, however that ends.

    Raises InputError in every process when another run holds it. In a bucket it is taken from the
    other run instead, and this process ends with code 2 when a third one takes it.
    """
    with contextlib.ExitStack() as stack:
        processes.agree("lock", lambda: _take(directory, stack))
        yield


def _take(directory: Path, stack: contextlib.ExitStack) -> None:
    if storage.is_remote(directory):
        stack.enter_context(_owned(directory / ".lock"))
        return
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
    file.write(f"{_holder()}\n")
    file.flush()


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextlib.contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Writes this run's name to `path`, and watches that it stays there."""
    mine = f"{_holder()} ({uuid.uuid4()})"
    storage.write(path, mine)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_SECONDS):
            try:
                now = path.read_text()
            except Exception as error:  # a bucket out of reach for a while is no reason to end
                print(f"warning: {path} cannot be read: {error}", file=sys.stderr, flush=True)
                continue
            if now != mine:
                _give_way(path.parent, now)

    thread = threading.Thread(target=watch, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _give_way(directory: Path, holder: str) -> None:
    """Ends the process at once: to save now would be to write over what the other run writes."""
    print(
        f"error: {directory} was taken over by another run, {holder}; this one ends. Give one of "
        "them another folder with --config.name=NAME",
        file=sys.stderr,
        flush=True,
    )
    os._exit(INPUT_ERROR_CODE)
