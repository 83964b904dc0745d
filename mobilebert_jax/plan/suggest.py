"""Finds how to use a machine: the settings with the least estimated time whose steps fit.

Estimates choose what is compiled, and every compilation corrects the estimates of what is left.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Literal

from mobilebert_jax.config.execution import Execution, Mesh, Remat, TeacherRemat
from mobilebert_jax.config.schema import Config
from mobilebert_jax.model.sizes import grouped_layers
from mobilebert_jax.plan.job import Job
from mobilebert_jax.plan.topology import Topology

COMPILED_AT_MOST = 6
MOST_PIECES = 32
"""Devices that parameters or moments are cut over at most; the widths of the networks, which
must divide, are small."""
Kept = tuple[Remat, TeacherRemat]
"""What blocks keep for their backward pass: `execution.remat` and `execution.teacher_remat`."""
KEPT: tuple[Kept, ...] = (
    ("none", "same"),
    ("dots", "same"),
    ("full", "feedforward"),
    ("full", "same"),
)
CUTS: tuple[Literal["params_and_optimizer", "params_gathered_once"], ...] = (
    "params_and_optimizer",
    "params_gathered_once",
)
"""`execution.fsdp_shard`; `optimizer_only` needs more memory and time than the latter."""

Make = Callable[[Config], Job]


@dataclasses.dataclass(frozen=True)
class Tried:
    """A candidate that was compiled, and what came of it."""

    config: Config
    job: Job


@dataclasses.dataclass
class Correction:
    """What compilers said over what was estimated, so far; 1 before the first compilation."""

    memory: float = 1.0
    time: float = 1.0

    def learn(self, estimated: Job, compiled: Job) -> None:
        self.memory = _temporaries(compiled) / max(1.0, _temporaries(estimated))
        if compiled.fits:
            self.time = compiled.high_s / estimated.high_s


def search(config: Config, topology: Topology, estimate: Make, measure: Make) -> list[Tried]:
    """Returns the candidates that were compiled: those that fit first, the fastest first.

    `estimate` and `measure` make the plan of a candidate, without and with a compiler. Jobs of
    candidates that the compiler refuses are plans that do not fit.
    """
    left = [(candidate, estimate(candidate)) for candidate in candidates(config, topology)]
    corrections = {kept: Correction() for kept in KEPT}
    tried: list[Tried] = []
    while left and len(tried) < COMPILED_AT_MOST:
        hopeful = [
            (corrections[_kept(job.config)].time * job.high_s, index)
            for index, (_, job) in enumerate(left)
            if _hopeful(job, corrections[_kept(job.config)])
        ]
        if not hopeful:
            break
        seconds, index = min(hopeful)
        if any(one.job.fits and one.job.high_s <= seconds for one in tried):
            break
        candidate, estimated = left.pop(index)
        compiled = measure(candidate)
        corrections[_kept(candidate)].learn(estimated, compiled)
        tried.append(Tried(candidate, compiled))
    return sorted(tried, key=lambda one: (not one.job.fits, one.job.high_s))


def candidates(config: Config, topology: Topology) -> Iterator[Config]:
    """Yields the settings worth a thought: pieces of parameters, parts of a batch, what is kept."""
    sizes = [getattr(config, stage).batch_size for stage in ("teacher", "transfer", "distill")]
    rows, per_slice = math.gcd(*sizes), topology.devices // topology.slices
    models = (config.teacher.model, config.student)
    layers = [layer for model in models for layer in grouped_layers(model).values()]
    widths = math.gcd(
        *(
            getattr(model, width)
            for model in models
            for width in ("embedding_size", "hidden_size", "intra_bottleneck_size")
        ),
        *(size // one.groups for one in layers if one.groups > 1 for size in one[:2]),
    )
    pieces = [
        2**power
        for power in range(MOST_PIECES.bit_length())
        if per_slice % 2**power == 0 and widths % 2**power == 0
    ]
    for fsdp, parts, kept, cuts in itertools.product(pieces, (1, 2, 4, 8), KEPT, CUTS):
        if rows % (topology.devices * parts) or (fsdp == 1 and cuts != CUTS[0]):
            continue
        execution = dataclasses.replace(
            config.execution,
            mesh=Mesh(fsdp=fsdp),
            micro_batches=parts,
            remat=kept[0],
            teacher_remat=kept[1],
            fsdp_shard=cuts,
        )
        yield dataclasses.replace(config, execution=execution)


def _kept(config: Config) -> Kept:
    return config.execution.remat, config.execution.teacher_remat


def overrides(config: Config, chosen: Execution) -> list[str]:
    """Returns the flags that make `config` use `chosen`."""
    before, flags = config.execution, []
    for name in ("data", "fsdp", "model", "slices"):
        if getattr(chosen.mesh, name) != getattr(before.mesh, name):
            flags.append(f"--config.execution.mesh.{name}={getattr(chosen.mesh, name)}")
    for name in ("micro_batches", "remat", "teacher_remat", "fsdp_shard"):
        if getattr(chosen, name) != getattr(before, name):
            flags.append(f"--config.execution.{name}={getattr(chosen, name)}")
    return flags


def _hopeful(job: Job, correction: Correction) -> bool:
    """Whether every step may fit, as far as is known."""
    for stage in job.stages:
        for step in stage.measured:
            memory = step.compiled.memory
            held = memory.peak - memory.temporaries
            if held + correction.memory * memory.temporaries > step.memory_per_device:
                return False
    return True


def _temporaries(job: Job) -> float:
    """The largest temporaries of any step."""
    return max(step.compiled.memory.temporaries for stage in job.stages for step in stage.measured)
