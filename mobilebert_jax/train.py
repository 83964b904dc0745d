"""The spine: one function trains any network towards any objective. Read this file first.

A training stage is where to start from, a list of phases, an optimiser, and a stream of batches. A
phase is a range of steps with one objective, hence one compiled program, or one for each length
that its batches have; all stages but progressive transfer have a single phase.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import rich.console

from mobilebert_jax import storage
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.data.batches import Batches
from mobilebert_jax.exit_codes import Preempted
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.loss_terms import Batch, Objective, Params
from mobilebert_jax.optimizer.build import Optimizer
from mobilebert_jax.optimizer.trainable import EVERYTHING, Part
from mobilebert_jax.sharding import rules
from mobilebert_jax.sharding.global_batch import to_devices
from mobilebert_jax.sharding.mesh import peak_flops
from mobilebert_jax.training import heartbeat
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.checkpoint import Checkpoints
from mobilebert_jax.training.compilation import Make, Programs, shapes
from mobilebert_jax.training.goodput import Goodput
from mobilebert_jax.training.health import SkippedSteps, StopRequest, Watchdog
from mobilebert_jax.training.metric_log import Meters
from mobilebert_jax.training.profiler import Profiler, Window
from mobilebert_jax.training.state import Layout, State
from mobilebert_jax.training.step import Step, make_step


class Phase(NamedTuple):
    """Steps `start <= step < stop` minimise `objective`; `metrics` are added to its metrics."""

    label: str
    start: int
    stop: int
    objective: Objective
    flops: float
    """Model FLOPs of one step, recomputation not counted; 0 where lengths, hence FLOPs, vary."""
    metrics: dict[str, float] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    part: Part = EVERYTHING
    """The parameters that the phase changes."""


class Training(NamedTuple):
    """Everything `train` needs to know of a stage."""

    name: str
    network: Network
    initial: Callable[[], Params]
    teacher: Params | None
    optimizer: Optimizer
    phases: tuple[Phase, ...]
    feed: Batches
    feed_offset: int = 0
    """Batch of the feed that step 0 reads."""
    held_out: Callable[[Params], dict[str, float]] | None = None
    """Measures parameters on held-out documents, every `execution.eval_every` steps."""

    @property
    def steps(self) -> int:
        return self.phases[-1].stop

    @property
    def tokens(self) -> int:
        """Tokens of all steps' batches, padding included."""
        return self.feed.tokens(self.feed_offset, self.feed_offset + self.steps)


def train(
    stage: Training,
    directory: Path,
    execution: Execution,
    seed: int,
    layout: Layout,
    console: rich.console.Console,
    profile: Window | None = None,
) -> State:
    """Runs `stage` to its last step, from the newest checkpoint in `directory` if there is one.

    Batch and random key of a step depend on its number alone, so that a run that was killed and
    started again ends with the parameters of one that was not.

    Raises NonFinite after too many steps that could not be applied, Preempted after SIGTERM or
    Ctrl-C.
    """
    goodput = Goodput(directory)
    with goodput.spent("restore"):
        checkpoints = open_checkpoints(directory, execution, console)
        state = restore_or_init(stage, checkpoints, layout)
    first = goodput.first_step = int(state.step)
    key = jax.jit(lambda: jax.random.key(seed), out_shardings=rules.replicated(layout.mesh))()
    skipped = SkippedSteps(directory / "skipped.jsonl", execution.max_nonfinite)
    profiler = Profiler(profile, directory / "profile")
    meters = Meters(
        directory,
        stage.name,
        start=first,
        stop=stage.steps,
        log_every=execution.log_every,
        peak_flops=peak_flops(layout.mesh),
        console=console,
    )
    offset = stage.feed_offset
    batches = stage.feed.iterate(first + offset, stage.steps + offset, execution.prefetch)
    watchdog = Watchdog(execution.watchdog_minutes * 60, stage.name)
    make = _maker(stage, execution, state, key)
    programs = Programs(make, len(stage.phases), execution.precompile_phases)
    with checkpoints, watchdog, meters, programs, StopRequest() as stop_request:
        for number, phase in enumerate(stage.phases):
            if phase.stop <= first:
                continue
            for step in range(max(phase.start, first), phase.stop):
                watchdog.beat(f"step {step}")
                with goodput.spent("input"):
                    rows = next(batches)
                batch = to_devices(stage.feed, rows, layout.mesh)
                tokens = batch["input_ids"].size
                if not programs.is_ready(number, batch):
                    with meters.pausing(f"compiling {phase.label}"), goodput.spent("compile"):
                        programs.get(number, batch)
                profiler.before(step - first)
                state, metrics = programs.get(number, batch)(state, stage.teacher, batch, key)
                row = meters.push(step, {**metrics, **phase.metrics}, tokens, phase.flops)
                if row is not None:
                    skipped.look_at(row)
                    goodput.write(int(row["step"]))
                if due(step, execution.eval_every) and stage.held_out:
                    with meters.pausing("evaluating"), goodput.spent("evaluation"):
                        meters.write(step, stage.held_out(state.params))
                stopping, last = stop_request.reached(step), step + 1 == stage.steps
                if stopping or last or due(step, execution.checkpoint_every):
                    if storage.is_remote(directory):
                        keep_rows(meters, skipped, goodput)
                    with goodput.spent("save"):
                        checkpoints.save(state, step + 1)
                if stopping:
                    skipped.look_at(meters.flush())
                    goodput.write(step)
                    goodput.keep()
                    raise Preempted(f"{stage.name} is saved at step {step + 1}")
        skipped.look_at(meters.flush())
        skipped.check_some_applied(stage.steps)
        profiler.close()
        with goodput.spent("save"):
            checkpoints.wait()
        goodput.write(stage.steps - 1)
        goodput.keep()
    return state


def keep_rows(meters: Meters, skipped: SkippedSteps, goodput: Goodput) -> None:
    """Brings the record of all steps so far into the bucket, ahead of the checkpoint after them.

    A start that goes on from that checkpoint would otherwise lack the rows before it for ever.
    """
    row = meters.flush()
    skipped.look_at(row)
    if row is not None:
        goodput.write(int(row["step"]))
    with goodput.spent("save"):
        meters.keep()
        goodput.keep()


def open_checkpoints(
    directory: Path, execution: Execution, console: rich.console.Console
) -> Checkpoints:
    """Opens the stage's checkpoints; says which ones are damaged and not used."""
    return Checkpoints(
        directory / "checkpoints",
        execution.keep_checkpoints,
        execution.keep_every,
        report=lambda text: console.print(f"[yellow]{text}[/]", soft_wrap=True),
        completed=lambda step: heartbeat.note(f"{directory.name} {step}"),
    )


def restore_or_init(stage: Training, checkpoints: Checkpoints, layout: Layout) -> State:
    """Returns the newest checkpoint's state, or else the stage's own initial state."""
    if checkpoints.latest() is None:
        return state_lib.start(stage.initial(), stage.network, stage.optimizer, layout)
    return checkpoints.restore(state_lib.abstract_state(stage.network, stage.optimizer, layout))


def _maker(stage: Training, execution: Execution, state: State, key: jax.Array) -> Make:
    """Returns what compiles the step of a phase, and holds no array that a step will donate."""
    abstract, abstract_key = shapes(state), shapes(key)
    return lambda number, batch: compile_step(
        stage, stage.phases[number], execution, abstract, batch, abstract_key
    )


def compile_step(
    stage: Training,
    phase: Phase,
    execution: Execution,
    state: State,
    batch: Batch,
    key: jax.Array,
) -> Step:
    """Compiles the step of `phase`; the state goes in and comes out with the same shardings.

    Every argument may be abstract, a shape with a sharding.
    """
    shardings = state_lib.shardings_of(state)
    mesh: Any = shardings.step.mesh
    layout = Layout(mesh, execution.fsdp_shard)
    step = make_step(
        phase.objective,
        stage.optimizer,
        execution.micro_batches,
        state_lib.shardings_of(state_lib.abstract_moment(stage.network, layout)),
        phase.part,
        state_lib.gathering(stage.network, layout),
    )
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    with rules.on(mesh):
        return jitted.lower(state, stage.teacher, batch, key).compile()


def due(step: int, every: int) -> bool:
    """Whether something done every `every` steps (0: never) is due after `step`."""
    return every > 0 and (step + 1) % every == 0
