"""How long a step takes: from what it computes, moves and sends, and what the chip can do.

low    the slowest of the three alone, each at the maker's figure, the other two hidden behind
       it: no implementation of the step is faster
high   nothing hidden: the compiler's estimate, or, where there is none, arithmetic and memory
       one after the other at usual efficiencies; then the messages at half the links' speed
likely the compiler's estimate corrected by what published jobs took (`calibration.py`); may lie
       above high, as a job of v3 did
"""

import dataclasses
from collections.abc import Iterable

from mobilebert_jax.plan import calibration
from mobilebert_jax.plan.collectives import Collective
from mobilebert_jax.plan.topology import Topology

MATRIX_EFFICIENCY = 0.4
"""Share of the peak that whole train steps of encoders of this size reach in published runs."""
MEMORY_EFFICIENCY = 0.7
NETWORK_EFFICIENCY = 0.5
RECOMPUTED = {"none": 1.0, "dots": 1.1, "feedforward": 1.15, "full": 4 / 3}
"""FLOPs with rematerialisation as a multiple of those without: full runs forward twice."""


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one step, by cause and together."""

    compute: float
    memory: float
    network: float
    """Within a slice, or between GPUs of a host."""
    between: float
    """Between slices or hosts."""
    compiler: float | None
    low: float
    likely: float
    high: float


def times(
    topology: Topology,
    flops: float,
    traffic: float,
    messages: Iterable[Collective],
    cycles: float | None,
    remat: str,
) -> Times:
    """Returns the time of a step of `flops` model FLOPs on all devices together.

    `traffic` is in bytes and `cycles` in the chip's clock, both of one device.
    """
    chip, messages = topology.chip, list(messages)
    compute = flops / (chip.peak_flops * topology.chips)
    memory = traffic / (chip.memory_bandwidth / chip.devices)
    network, between = _within(topology, messages), _between(topology, messages)
    compiler = cycles / chip.clock if cycles and chip.clock else None
    steady = (
        compiler
        if compiler is not None
        else compute * RECOMPUTED[remat] / MATRIX_EFFICIENCY + memory / MEMORY_EFFICIENCY
    )
    low = max(compute, memory, network, between)
    high = max(steady, compute) + (network + between) / NETWORK_EFFICIENCY
    return Times(
        compute=compute,
        memory=memory,
        network=network,
        between=between,
        compiler=compiler,
        low=low,
        likely=calibration.likely(chip.name, compiler, low, high),
        high=high,
    )


def _within(topology: Topology, messages: Iterable[Collective]) -> float:
    """Seconds for all messages over the links of one chip, which its devices share: they add up
    among themselves first, so that a chip sends no more than one device would."""
    sent = sum(one.times * one.sent(topology.devices) for one in messages)
    return sent / topology.chip.interconnect


def _between(topology: Topology, messages: Iterable[Collective]) -> float:
    """Seconds for what leaves a slice: of each sum or array once, however many chips share it."""
    if topology.slices == 1:
        return 0.0
    total = 0.0
    for one in messages:
        if one.crosses(topology.devices, topology.slices):
            factor = 2.0 if one.kind == "all-reduce" else 1.0
            share = (topology.slices - 1) / topology.slices
            total += one.times * max(1, len(one.groups)) * factor * share * one.bytes
    return total / (topology.hosts_per_slice * topology.chip.host_network)
