"""Compiles a train step for devices that are not here, and reads what the compiler says of it."""

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import jax

from mobilebert_jax import train
from mobilebert_jax.config.schema import Config
from mobilebert_jax.plan import cycles
from mobilebert_jax.plan.collectives import Collective, collectives
from mobilebert_jax.plan.programs import Arguments, Program, arguments
from mobilebert_jax.training.state import Layout

_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}
_SIZE = r"([\d.]+)([KMGT]?)"
_USED_OF = re.compile(rf"Used {_SIZE} of {_SIZE} hbm")
_TEMPORARIES_OF = re.compile(rf"temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device while a step runs."""

    parameters: float
    moments: float
    teacher: float
    batch: float
    temporaries: float
    """Activations, gradients and everything else that lives within a step only."""
    limit: float | None = None
    """What the compiler may use, where it says so: less than the chip has."""

    @property
    def peak(self) -> float:
        return self.parameters + self.moments + self.teacher + self.batch + self.temporaries


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One train step as a compiler made it, or refused to for lack of memory, or as estimated."""

    memory: Memory
    fits: bool
    collectives: tuple[Collective, ...] = ()
    cycles: float | None = None
    """The compiler's own estimate for one device; None where it gives none."""
    traffic: float = 0.0
    """Bytes that one device reads and writes at the least: what it holds, each once."""
    seconds: float = 0.0
    """Time of the compilation itself."""
    processor_seconds: float = 0.0
    """Of all cores together in it: a busy machine takes longer, but no more of them."""
    source: str = "compiled"
    """How this is known."""


def compile_program(program: Program, config: Config, layout: Layout) -> Compiled:
    """Compiles the step of `program` over the devices of `layout`, which need not exist."""
    given = arguments(program, layout)
    began, worked = time.perf_counter(), time.process_time()
    try:
        step: Any = train.compile_step(
            program.training, program.phase, config.execution, given.state, given.batch, given.key
        )
        found = read(step, _held(given))
    except jax.errors.JaxRuntimeError as error:
        refused = too_large(str(error), _held(given))
        if refused is None:
            raise
        found = refused
    return dataclasses.replace(
        found,
        seconds=time.perf_counter() - began,
        processor_seconds=time.process_time() - worked,
    )


def too_large(message: str, held: Mapping[str, float]) -> Compiled | None:
    """Returns what a compiler said that found too little memory; None if it said something else."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    for pattern in (_USED_OF, _TEMPORARIES_OF):
        found = pattern.search(message)
        if found:
            used, limit = (float(found[i]) * _UNITS[found[i + 1]] for i in (1, 3))
            temporaries = used - sum(held.values()) if pattern is _USED_OF else used
            return Compiled(Memory(**held, temporaries=temporaries, limit=limit), fits=False)
    return None


def read(step: Any, held: Mapping[str, float]) -> Compiled:
    """Returns what a compiled step says of itself; `held` is what its arguments take."""
    analysis, text = step.memory_analysis(), step.as_text()
    temporaries = float(analysis.temp_size_in_bytes)
    fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    memory = Memory(**held, temporaries=temporaries + max(0, fresh))
    return Compiled(
        memory,
        fits=True,
        collectives=tuple(collectives(text)),
        cycles=cycles.estimate(text),
        traffic=2.0 * memory.temporaries
        + analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes,
    )


def _held(given: Arguments) -> dict[str, float]:
    return {
        "parameters": bytes_per_device(given.state.params),
        "moments": bytes_per_device(given.state.opt_state),
        "teacher": bytes_per_device(given.teacher),
        "batch": bytes_per_device(given.batch),
    }


def bytes_per_device(tree: Any) -> float:
    """Returns what one device holds of a tree of arrays or of their shapes, cut as they say."""
    return float(
        sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )
