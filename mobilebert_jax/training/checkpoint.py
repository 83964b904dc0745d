"""Checkpoints of the training state, through Orbax: asynchronous, with checksums and retention.

Parameters and moments are separate items, so that a later stage reads the parameters alone. A save
that is complete on disk gets a checksum manifest, its files with their SHA-256. Only what agrees
with it is ever read, so that neither a kill during a save nor a torn or flipped byte is taken for a
checkpoint; what does not agree is set aside, and the one before it is used.
"""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mobilebert_jax import checksums, storage
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.distributed import processes
from mobilebert_jax.exit_codes import NonFinite, Preempted
from mobilebert_jax.training.state import Params, State

POLL_SECONDS = 0.05
COMMITTED = "commit_success.txt"
"""What Orbax writes last into a checkpoint in a bucket, where nothing can be renamed."""


class Damaged(Exception):
    """A finished stage has no checkpoint that agrees with its checksums."""

    def __init__(self, directory: Path, problems: list[str]):
        super().__init__(f"the checkpoints in {directory} cannot be used: {'; '.join(problems)}")
        self.directory = directory


class Checkpoints:
    """The checkpoints of one stage, in `directory`.

    Keeps the newest `keep`, and for good every one whose step divides by `keep_every` (0: none).
    `report` gets a sentence for each checkpoint that had to be set aside, `completed` the step of
    each that is complete.
    As a context manager it waits at its end for the save under way, unless a mistake or a broken
    disk ended the block: then there may be nothing to wait for.
    """

    def __init__(
        self,
        directory: Path,
        keep: int,
        keep_every: int = 0,
        report: Callable[[str], None] = lambda text: None,
        completed: Callable[[int], None] = lambda step: None,
    ):
        self._directory = storage.absolute(directory)
        # Before Orbax looks: what it sees it takes for the newest.
        aside = processes.agree("checkpoints", lambda: set_aside(self._directory))
        for text in aside:
            report(text)
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                keep_period=keep_every or None,
                create=True,
                cleanup_tmp_directories=True,
            ),
        )
        self._completed = completed
        self._checksum_pool = ThreadPoolExecutor(1, thread_name_prefix="checksums")
        self._closing = threading.Event()
        self._pending: Future[None] | None = None
        self._last_saved: int | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, NonFinite | Preempted):
            self.close()

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, state: State, step: int) -> None:
        """Starts saving `state`, taken after `step` steps; returns before it is on disk.

        Raises OSError when the save before this one failed for want of storage, and NonFinite,
        before anything is written, when a parameter is not finite.
        """
        _check_finite(state.params, self._directory)
        self._save(step, params=state.params, opt_state=state.opt_state)

    def save_params(self, params: Params, step: int) -> None:
        """As `save`, of parameters that are not trained any further."""
        _check_finite(params, self._directory)
        self._save(step, params=params)

    def _save(self, step: int, **items: Any) -> None:
        saved = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with _storage_errors(self._directory):
            self._raise_failures()
            self._tell_others_supervisor()
            self._manager.save(step, args=ocp.args.Composite(**saved))
        self._last_saved = step
        if processes.is_first():
            self._pending = self._checksum_pool.submit(self._write_checksums, step)

    def _tell_others_supervisor(self) -> None:
        """Process 0 writes the checksums; every process has a supervisor that watches progress."""
        if not processes.is_first() and self._last_saved is not None:
            self._manager.wait_until_finished()
            self._completed(self._last_saved)

    def _write_checksums(self, step: int) -> None:
        path = self._directory / str(step)
        # Not only when no save is under way: where saves follow each other without a pause none
        # would get its checksums before the last.
        while self._manager.is_saving_in_progress() and not _is_complete(path):
            if self._closing.wait(POLL_SECONDS):
                break
        if not _is_complete(path):
            return
        try:
            checksums.write(path)
        except FileNotFoundError:
            # Removed by retention meanwhile, or never finished, which `save` and `close` report.
            return
        self._completed(step)

    def _raise_failures(self) -> None:
        self._manager.check_for_errors()
        if self._pending is not None and self._pending.done():
            self._pending.result()

    def restore(self, abstract: State) -> State:
        """Returns the newest state, with the shardings of `abstract`."""
        step = self._manager.latest_step()
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                opt_state=ocp.args.StandardRestore(abstract.opt_state),
            ),
        )
        sharding = abstract.step.sharding
        step_array = jax.jit(lambda: jnp.int32(step), out_shardings=sharding)()
        return State(restored["params"], restored["opt_state"], step_array)

    def wait(self) -> None:
        """Waits for the save under way and for its checksums; raises as `save` does."""
        with _storage_errors(self._directory):
            self._manager.wait_until_finished()
            self._raise_failures()
            self._tell_others_supervisor()
            if self._pending is not None:
                self._pending.result()

    def close(self) -> None:
        """Does as `wait`, and lets go of the folder."""
        try:
            self.wait()
        finally:
            self._closing.set()
            self._checksum_pool.shutdown()
            self._manager.close()
        processes.wait_for_all("checkpoints closed")


@jax.jit
def _finite(params: Params) -> list[jax.Array]:
    return [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]


def _check_finite(params: Params, directory: Path) -> None:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    bad = [path for path, finite in zip(paths, _finite(params), strict=True) if not finite]
    if bad:
        names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in bad]
        raise NonFinite(
            f"{directory.parent.name}: {len(bad)} of {len(paths)} parameters hold numbers that are "
            f"not finite, first {names[0]}; they are not saved, and the checkpoint before them is "
            "the newest"
        )


@contextlib.contextmanager
def _storage_errors(directory: Path) -> Iterator[None]:
    """Raises OSError for what TensorStore reports of the file system as ValueError."""
    try:
        yield
    except ValueError as error:
        reported = re.search(r"os_error_code='(\d+)'", str(error))
        if reported is None:
            raise
        number = int(reported[1])
        raise OSError(number, os.strerror(number), str(directory)) from error


def set_aside(directory: Path) -> list[str]:
    """Moves every checkpoint that does not agree with its checksums out of the way; says which."""
    found = []
    for path in _steps(directory):
        problems = checksums.problems(path)
        if problems:
            folder = _damaged(directory)
            number = 1 + sum(name.startswith(f"{path.name}-") for name in storage.names(folder))
            storage.move_folder(path, folder / f"{path.name}-{number}")
            found.append(
                f"checkpoint {path} is not used, because {problems[0]}; it was moved to {folder}"
            )
    return found


def _damaged(directory: Path) -> Path:
    # In a bucket Orbax removes whatever lies beside the checkpoints and is none.
    return directory.with_name("damaged") if storage.is_remote(directory) else directory / "damaged"


def _steps(directory: Path) -> list[Path]:
    """Returns the folders of complete saves, oldest first."""
    steps = sorted(int(name) for name in storage.names(directory) if name.isdigit())
    return [path for step in steps if _is_complete(path := directory / str(step))]


def _is_complete(path: Path) -> bool:
    """Whether a save came to its end: a renamed folder on a disk, and in a bucket a last file."""
    return (path / COMMITTED).exists() if storage.is_remote(path) else path.is_dir()


def load_params(directory: Path, abstract: Params) -> Params:
    """Returns the newest parameters in `directory`, with the shardings of `abstract`.

    Raises InputError when there are none, Damaged when they do not agree with their checksums.
    """
    steps = _steps(directory)
    if not steps:
        raise InputError(f"no complete checkpoint in {directory}")
    found = processes.agree("checksums", lambda: checksums.problems(steps[-1]))
    if found:
        raise Damaged(directory, found)
    with ocp.CheckpointManager(storage.absolute(directory)) as manager:
        restored: Any = manager.restore(
            int(steps[-1].name), args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract))
        )
        return restored["params"]
