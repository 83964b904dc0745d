"""What a job costs: chip-hours, and the time that passes beside its steps, stage by stage.

Lost time has four causes, each from likely step times:

input         a step waits for its batch, where the hosts' feed is slower than the step
checkpoints   a save that is not done when the next begins; until then it goes on in the background
compilation   the first program of a stage, and what later ones take beyond the steps meanwhile
failures      detection, start, restoring, and the steps since the last complete checkpoint
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config.plan_assumptions import Assumptions
from mobilebert_jax.pipeline import flops
from mobilebert_jax.plan import compile_time
from mobilebert_jax.plan.job import Job, Stage, Step, per_phase

HOUR, YEAR = 3600.0, 365.25 * 86_400
FEED = {128: 7_000.0, 512: 6_300.0}
"""Examples a second, by their length, that the one thread of a host makes of records on disk, on
the slowest CPU that was measured (docs/performance.md, "The feed against the step")."""
START_S = 60.0
"""From the end of a broken job to its first step, without restoring; assumed. The demo needs 5.5
seconds on two cores with its programs compiled before; a launcher waits 10 before it starts."""


@dataclasses.dataclass(frozen=True)
class Feeding:
    """Examples a second that one host must make for a step, beside what it can."""

    step: Step
    likely: float
    most: float
    """Where the step takes no longer than the least possible."""
    given: float


@dataclasses.dataclass(frozen=True)
class StageCost:
    """What one stage takes, in seconds unless a name says otherwise."""

    name: str
    steps_s: tuple[float, float, float]
    """All its steps: from, likely, to."""
    checkpoint_bytes: float
    saves: int
    save_s: float
    """One save, at the assumed bandwidth."""
    failures: float
    """How many are to be expected."""
    lost: dict[str, float]
    """By cause; `failures` is infinite where there is no progress between two of them."""

    @property
    def total_s(self) -> float:
        """Likely steps and all that is lost beside them."""
        return self.steps_s[1] + sum(self.lost.values())

    @property
    def goodput(self) -> float:
        """Share of the time in which steps are made that count."""
        return self.steps_s[1] / self.total_s

    @property
    def save_share(self) -> float:
        """Share of the likely time during which a save goes on."""
        return min(1.0, self.saves * self.save_s / self.steps_s[1])


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a whole job takes, stage by stage."""

    chips: int
    assumptions: Assumptions
    stages: tuple[StageCost, ...]
    feeding: tuple[Feeding, ...]

    @property
    def total_s(self) -> float:
        return sum(stage.total_s for stage in self.stages)

    @property
    def goodput(self) -> float:
        return sum(stage.steps_s[1] for stage in self.stages) / self.total_s

    def chip_hours(self, seconds: float) -> float:
        return seconds * self.chips / HOUR

    def money(self, seconds: float) -> float:
        return self.chip_hours(seconds) * self.assumptions.price


def of(job: Job, assumptions: Assumptions) -> Costs:
    """Returns what `job` costs under `assumptions`."""
    stages = tuple(_stage(job, stage, assumptions) for stage in job.stages)
    feeding = tuple(_feeding(job, stage, step) for stage in job.stages for step in stage.measured)
    return Costs(job.topology.chips, assumptions, stages, feeding)


def _stage(job: Job, stage: Stage, assumptions: Assumptions) -> StageCost:
    every = job.config.execution.checkpoint_every
    save_s = stage.checkpoint_bytes / (1e9 * assumptions.checkpoint_gb_per_s)
    saves = math.ceil(stage.steps / every)
    lost = {
        "input": _input(job, stage),
        "checkpoints": saves * max(0.0, save_s - every * stage.likely_s / stage.steps),
        "compilation": _compilation(job, stage),
    }
    busy = stage.likely_s + sum(lost.values())
    rate = assumptions.failures_per_chip_year * job.topology.chips / YEAR
    share = rate * _failure(job, stage, save_s)
    total = busy / (1 - share) if share < 1 else math.inf
    lost["failures"] = total - busy
    return StageCost(
        stage.name,
        (stage.low_s, stage.likely_s, stage.high_s),
        stage.checkpoint_bytes,
        saves,
        save_s,
        rate * total,
        lost,
    )


def _failure(job: Job, stage: Stage, save_s: float) -> float:
    """Seconds that one failure costs: until it is seen, started again, restored and made up for."""
    execution = job.config.execution
    interval = min(execution.checkpoint_every, stage.steps) * stage.likely_s / stage.steps
    return execution.heartbeat_timeout_seconds + START_S + save_s + interval / 2 + save_s


def _input(job: Job, stage: Stage) -> float:
    """Seconds that the steps of a stage wait for their batches."""
    step_s = _likely(stage)
    batch_s = flops.batch_size(job.config, stage.name) / _hosts(job) / feed(job)
    return stage.steps / stage.phases * float(np.sum(np.maximum(0.0, batch_s - step_s)))


def _compilation(job: Job, stage: Stage) -> float:
    """Seconds that a stage waits for its programs, the later ones made while earlier ones run."""
    taken = per_phase(
        stage.measured, [_compile_s(job, step) for step in stage.measured], stage.phases
    )
    ahead = job.config.execution.precompile_phases
    running = stage.steps / stage.phases * _likely(stage)
    waits = float(taken[0])
    for phase in range(1, stage.phases):
        waits += max(0.0, float(taken[phase] - running[max(0, phase - ahead) : phase].sum()))
    return waits


def _compile_s(job: Job, step: Step) -> float:
    """As long as here on cores that do nothing else; an estimate for what was not compiled."""
    worked = step.compiled.processor_seconds
    if worked:
        return worked * compile_time.SEVERAL_CORES
    return compile_time.seconds(job.config, step.stage, step.layer)


def _likely(stage: Stage) -> NDArray[np.float64]:
    """Likely seconds of one step of each phase."""
    return per_phase(stage.measured, [step.times.likely for step in stage.measured], stage.phases)


def _feeding(job: Job, stage: Stage, step: Step) -> Feeding:
    rows = flops.batch_size(job.config, stage.name) / _hosts(job)
    return Feeding(step, rows / step.times.likely, rows / step.times.low, feed(job))


def _hosts(job: Job) -> int:
    return job.topology.hosts_per_slice * job.topology.slices


def feed(job: Job) -> float:
    """Returns the examples a second that one host's feed makes, between measured lengths and beyond
    them by the time an example takes, a straight line of its length."""
    (short, fast), (long, slow) = sorted(FEED.items())
    per_token = (1 / slow - 1 / fast) / (long - short)
    return 1 / (1 / fast + per_token * (job.config.data.max_seq_length - short))
