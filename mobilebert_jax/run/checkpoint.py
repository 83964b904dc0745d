"""Checkpoints of the training state, through Orbax, asynchronous and with retention.

Parameters and moments are separate items, so that a later stage reads the parameters alone. A kill
during a save leaves a temporary folder that is never taken for a checkpoint.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from mobilebert_jax.config import InputError
from mobilebert_jax.run.state import Params, State


class Checkpoints:
    """The checkpoints of one stage, in `directory`; keeps the newest `keep`."""

    def __init__(self, directory: Path, keep: int):
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: State, step: int) -> None:
        """Starts saving `state`, taken after `step` steps; returns before it is on disk."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                opt_state=ocp.args.StandardSave(state.opt_state._asdict()),
            ),
        )

    def restore(self, abstract: State) -> State:
        """Returns the newest state, with the shardings of `abstract`."""
        step = self._manager.latest_step()
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                opt_state=ocp.args.StandardRestore(abstract.opt_state._asdict()),
            ),
        )
        moments = type(abstract.opt_state)(**restored["opt_state"])
        step_array = jax.device_put(jnp.int32(step), abstract.step.sharding)
        return State(restored["params"], moments, step_array)

    def close(self) -> None:
        """Waits for saves under way."""
        self._manager.close()


def load_params(directory: Path, abstract: Params) -> Params:
    """Returns the newest parameters in `directory`, with the shardings of `abstract`.

    Raises InputError when there are none.
    """
    if not directory.is_dir():
        raise InputError(f"no checkpoints in {directory}")
    with ocp.CheckpointManager(directory.absolute()) as manager:
        step: Any = manager.latest_step()
        if step is None:
            raise InputError(f"no complete checkpoint in {directory}")
        return manager.restore(
            step, args=ocp.args.Composite(params=ocp.args.StandardRestore(abstract))
        )["params"]
