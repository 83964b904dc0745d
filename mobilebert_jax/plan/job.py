"""The plan of a whole job: every stage's step measured, and its steps added up."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config.schema import Config, InputError
from mobilebert_jax.config.stage_settings import settle
from mobilebert_jax.model import sizes
from mobilebert_jax.pipeline import flops
from mobilebert_jax.plan.analytic import Cut
from mobilebert_jax.plan.compiled import Compiled
from mobilebert_jax.plan.roofline import Times, times
from mobilebert_jax.plan.topology import Topology
from mobilebert_jax.sharding.mesh import check_batch

STATE_ARRAYS = 3
"""Parameters and two moments, all float32, make up a checkpoint."""

Measure = Callable[[Config, str, int | None], Compiled]
"""(configuration, stage, layer of transfer) -> what its step needs on one device."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One train step: of a stage, or of one phase of progressive transfer."""

    stage: str
    layer: int | None
    flops: float
    compiled: Compiled
    times: Times
    memory_per_device: float
    """What the step may use of one device."""

    @property
    def label(self) -> str:
        return self.stage if self.layer is None else f"{self.stage} {self.layer}"

    @property
    def fits(self) -> bool:
        return self.compiled.fits and self.compiled.memory.peak <= self.memory_per_device


@dataclasses.dataclass(frozen=True)
class Stage:
    """A training stage: its measured steps, and the time of all of them."""

    name: str
    steps: int
    parameters: int
    measured: tuple[Step, ...]
    low_s: float
    likely_s: float
    high_s: float
    phases: int = 1
    """Steps of their own that the stage has, one a layer under progressive transfer."""

    @property
    def checkpoint_bytes(self) -> float:
        return 4.0 * STATE_ARRAYS * self.parameters

    @property
    def interpolated(self) -> bool:
        """Whether phases between the measured ones are interpolated by their layer."""
        return len(self.measured) < self.phases


@dataclasses.dataclass(frozen=True)
class Job:
    """A plan: what it was asked for, and every stage."""

    topology: Topology
    config: Config
    cut: Cut
    stages: tuple[Stage, ...]

    @property
    def fits(self) -> bool:
        return all(step.fits for stage in self.stages for step in stage.measured)

    @property
    def low_s(self) -> float:
        return sum(stage.low_s for stage in self.stages)

    @property
    def likely_s(self) -> float:
        return sum(stage.likely_s for stage in self.stages)

    @property
    def high_s(self) -> float:
        return sum(stage.high_s for stage in self.stages)


def make(config: Config, topology: Topology, cut: Cut, layers: str, measure: Measure) -> Job:
    """Measures the steps of every training stage and returns the plan.

    Raises InputError for layers that there are not, and for batches that do not divide.
    """
    config = settle(config, config.tokenizer.vocab_size)
    check_batches(config, cut)
    stages = []
    for name, chosen in programs(config, layers).items():
        measured = tuple(_step(config, topology, name, layer, measure) for layer in chosen)
        stages.append(_stage(config, name, measured))
    if not stages:
        raise InputError(f"none of the stages {list(config.stages)} trains anything to plan for")
    return Job(topology, config, cut, tuple(stages))


def programs(config: Config, layers: str) -> dict[str, Sequence[int | None]]:
    """Returns the programs to be measured: of each training stage the layers that are taught, None
    for a stage with one program.

    Raises InputError for layers that there are not.
    """
    return {
        name: chosen_layers(layers, config) if is_progressive(config, name) else [None]
        for name in training_stages(config)
    }


def training_stages(config: Config) -> list[str]:
    """Returns the stages of the experiment that take training steps, in order."""
    return [
        stage
        for stage in flops.TRAINING_STAGES
        if stage in config.stages and flops.steps(config, stage)
    ]


def is_progressive(config: Config, stage: str) -> bool:
    """Whether each layer of `stage` has a step of its own."""
    return stage == "transfer" and config.transfer.strategy == "progressive"


def check_batches(config: Config, cut: Cut) -> None:
    """Raises InputError for a batch that the mesh and the micro-batches do not divide."""
    parts = cut.data * cut.fsdp * config.execution.micro_batches
    for stage in training_stages(config):
        check_batch(stage, flops.batch_size(config, stage), parts, "data x fsdp x micro_batches")


def chosen_layers(text: str, config: Config) -> list[int]:
    """Returns which layers of progressive transfer to measure.

    `text` is `all`, numbers such as `0,11,23`, or `some` for the first, the middle and the last.
    Raises InputError for a layer that there is not.
    """
    layers = config.student.num_hidden_layers
    if text == "all":
        return list(range(layers))
    if text == "some":
        return sorted({0, layers // 2, layers - 1})
    numbers = [part.strip() for part in text.split(",")]
    chosen = sorted({int(number) for number in numbers if number.isdecimal()})
    if not all(number.isdecimal() for number in numbers) or chosen[-1] >= layers:
        raise InputError(
            f"--plan_layers={text!r} must be 'some', 'all', or numbers from 0 to {layers - 1} with "
            "commas between them, such as '0,11,23'"
        )
    return chosen


def _step(
    config: Config, topology: Topology, stage: str, layer: int | None, measure: Measure
) -> Step:
    compiled, work = measure(config, stage, layer), flops.step_flops(config, stage, layer)
    limit = compiled.memory.limit or topology.chip.memory_per_device
    return Step(
        stage,
        layer,
        work,
        compiled,
        times(
            topology,
            work,
            compiled.traffic,
            compiled.collectives,
            compiled.cycles,
            config.execution.remat_of(stage),
        ),
        limit,
    )


def _stage(config: Config, name: str, measured: tuple[Step, ...]) -> Stage:
    model = config.teacher.model if name == "teacher" else config.student
    phases = config.student.num_hidden_layers if is_progressive(config, name) else 1
    steps = flops.steps(config, name)

    def seconds(of_step: Callable[[Times], float]) -> float:
        each = per_phase(measured, [of_step(step.times) for step in measured], phases)
        return steps / phases * float(np.sum(each))

    return Stage(
        name,
        steps,
        sizes.pretraining_parameters(model),
        measured,
        low_s=seconds(lambda times: times.low),
        likely_s=seconds(lambda times: times.likely),
        high_s=seconds(lambda times: times.high),
        phases=phases,
    )


def per_phase(
    measured: Sequence[Step], values: Sequence[float], phases: int
) -> NDArray[np.float64]:
    """Returns a value of each phase, those of layers that were not measured interpolated."""
    if phases == 1 or measured[0].layer is None:
        return np.full(phases, values[0])
    layers = [step.layer for step in measured if step.layer is not None]
    return np.interp(range(phases), layers, values)
