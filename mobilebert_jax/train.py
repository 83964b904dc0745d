"""The spine: one function trains any network towards any objective. Read this file first.

A training stage is where to start from, a list of phases, an optimiser, and a stream of batches. A
phase is a range of steps with one objective, hence one compiled program; all stages but progressive
transfer have a single phase.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import rich.console

from mobilebert_jax import config as config_lib
from mobilebert_jax.data.feed import Feed
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.losses import Batch, Objective, Params
from mobilebert_jax.optimizer.update import Optimizer
from mobilebert_jax.partition import rules
from mobilebert_jax.run import state as state_lib
from mobilebert_jax.run.checkpoint import Checkpoints
from mobilebert_jax.run.health import NonFiniteSteps, Preempted, StopRequest
from mobilebert_jax.run.meters import Meters
from mobilebert_jax.run.state import State
from mobilebert_jax.run.step import Step, make_step


class Phase(NamedTuple):
    """Steps `start <= step < stop` minimise `objective`; `figures` are added to its metrics."""

    label: str
    start: int
    stop: int
    objective: Objective
    figures: dict[str, float] = {}  # noqa: RUF012 - a NamedTuple's default, never changed


class Training(NamedTuple):
    """Everything `train` needs to know of a stage."""

    name: str
    network: Network
    initial: Callable[[], Params]
    teacher: Params | None
    optimizer: Optimizer
    phases: tuple[Phase, ...]
    feed: Feed
    tokens_per_step: int
    feed_offset: int = 0
    """Batch of the feed that step 0 reads."""
    held_out: Callable[[Params], dict[str, float]] | None = None
    """Measures parameters on held-out documents, every `execution.eval_every` steps."""

    @property
    def steps(self) -> int:
        return self.phases[-1].stop


def train(
    stage: Training,
    directory: Path,
    execution: config_lib.Execution,
    seed: int,
    mesh: jax.sharding.Mesh,
    console: rich.console.Console | None,
) -> State:
    """Runs `stage` to its last step, from the newest checkpoint in `directory` if there is one.

    Batch and random key of a step depend on its number alone, so that a run that was killed and
    started again ends with the parameters of one that was not.

    Raises NonFinite after too many steps that could not be applied, Preempted after SIGTERM.
    """
    checkpoints = Checkpoints(directory / "checkpoints", execution.keep_checkpoints)
    state = restore_or_init(stage, checkpoints, mesh)
    first = int(state.step)
    key = jax.random.key(seed)
    nonfinite = NonFiniteSteps(directory / "nonfinite.jsonl", execution.max_nonfinite)
    meters = Meters(
        directory,
        stage.name,
        start=first,
        stop=stage.steps,
        tokens_per_step=stage.tokens_per_step,
        log_every=execution.log_every,
        console=console,
    )
    offset = stage.feed_offset
    batches = stage.feed.iterate(first + offset, stage.steps + offset, execution.prefetch)
    with meters, StopRequest() as stop_request:
        for phase in stage.phases:
            if phase.stop <= first:
                continue
            step_fn = None
            for step in range(max(phase.start, first), phase.stop):
                batch = to_devices(next(batches), mesh)
                if step_fn is None:
                    with meters.compiling(phase.label):
                        step_fn = compile_step(stage, phase, execution, state, batch, key)
                state, metrics = step_fn(state, stage.teacher, batch, key)
                row = meters.push(step, {**metrics, **phase.figures})
                nonfinite.look_at(row)
                if due(step, execution.eval_every) and stage.held_out:
                    meters.pause("evaluating")
                    meters.write(step, stage.held_out(state.params))
                    meters.resume()
                stopping, last = stop_request.received, step + 1 == stage.steps
                if stopping or last or due(step, execution.checkpoint_every):
                    checkpoints.save(state, step + 1)
                if stopping:
                    checkpoints.close()
                    nonfinite.look_at(meters.flush())
                    raise Preempted(f"{stage.name} is saved at step {step + 1}")
        nonfinite.look_at(meters.flush())
    checkpoints.close()
    return state


def restore_or_init(stage: Training, checkpoints: Checkpoints, mesh: jax.sharding.Mesh) -> State:
    """Returns the newest checkpoint's state, or else the stage's own initial state."""
    if checkpoints.latest() is None:
        return state_lib.start(stage.initial(), stage.optimizer, mesh)
    return checkpoints.restore(state_lib.abstract_state(stage.network, mesh))


def compile_step(
    stage: Training,
    phase: Phase,
    execution: config_lib.Execution,
    state: State,
    batch: Batch,
    key: jax.Array,
) -> Step:
    """Compiles the step of `phase`; the state goes in and comes out with the same shardings."""
    step = make_step(phase.objective, stage.optimizer, execution.micro_batches)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    return jitted.lower(state, stage.teacher, batch, key).compile()


def to_devices(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> Batch:
    """Returns the global batch, of which this process holds its own rows."""
    sharding = rules.batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }


def due(step: int, every: int) -> bool:
    """Whether something done every `every` steps (0: never) is due after `step`."""
    return every > 0 and (step + 1) % every == 0
