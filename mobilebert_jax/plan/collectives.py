"""Which messages one step of a compiled program exchanges between devices, and how large they are.

Works on the text of programs for CPU, GPU and TPU; an asynchronous collective counts at its start.
"""

import dataclasses
import math
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.plan import hlo

KINDS = (
    "all-reduce",
    "reduce-scatter",
    "all-gather",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
    "collective-permute",
)

_GROUPS = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})?\}")
_IOTA_GROUPS = re.compile(
    r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?",
)
_MESH_GROUPS = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
)
_MESH_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{} ]*\})?\}")
_GOES_ON = re.compile(r'"async_collective_fusion_config":\{"flag_start":"(?!-1")')
"""A TPU's compiler writes a collective once more into every fusion that runs beside it."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction, over all the times that a step runs it."""

    kind: str
    arrays: tuple[hlo.Array, ...]
    """What it delivers: for all-reduce the sums, for all-gather the gathered arrays."""
    groups: tuple[tuple[int, ...], ...]
    """Devices that exchange with each other, by their number in the mesh; () is all of them. For
    collective-permute pairs of sender and receiver."""
    times: int
    known: bool
    """False where `times` is too low, for lack of a loop's number of rounds."""

    @property
    def bytes(self) -> float:
        """Bytes of one run: of the whole array that the group cuts up, or sums, on one device."""
        delivered = sum(array.bytes for array in self.arrays)
        return delivered * self.group_size if self.kind == "reduce-scatter" else delivered

    @property
    def group_size(self) -> int:
        """Devices of one group; 0 where all take part."""
        return len(self.groups[0]) if self.groups else 0

    def sent(self, devices: int) -> float:
        """Returns the bytes that one device sends in one run on a ring, the least possible."""
        size = self.group_size or devices
        factor = {"all-reduce": 2.0 * (size - 1) / size, "collective-permute": 1.0}
        return self.bytes * factor.get(self.kind, (size - 1) / size)

    def crosses(self, devices: int, slices: int) -> bool:
        """Whether a group has devices of several of the mesh's equal `slices`."""
        groups = self.groups or (tuple(range(devices)),)
        return any(len({device * slices // devices for device in group}) > 1 for group in groups)


def collectives(text: str) -> list[Collective]:
    """Returns the collectives of a compiled program in the order of its text."""
    found = []
    for counted in hlo.walk(text):
        instruction = counted.instruction
        started = instruction.opcode.endswith("-start")
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS or _GOES_ON.search(instruction.rest):
            continue
        shape = instruction.result
        if started and kind != "all-reduce":
            # (operands, results, ...): what is under way is what will be delivered.
            shape = hlo.elements(shape)[1]
        found.append(
            Collective(
                kind,
                tuple(hlo.arrays(shape)),
                _groups(instruction.rest),
                counted.times,
                counted.known,
            )
        )
    return found


def totals(found: Iterable[Collective]) -> dict[str, tuple[int, float]]:
    """Returns for each kind how many messages a step has and their bytes."""
    summed: dict[str, tuple[int, float]] = {}
    for one in found:
        count, size = summed.get(one.kind, (0, 0.0))
        summed[one.kind] = (count + one.times, size + one.times * one.bytes)
    return dict(sorted(summed.items()))


def _groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    meshed = _MESH_GROUPS.search(attributes)
    if meshed:
        return _mesh_groups(*meshed.groups())
    iota = _IOTA_GROUPS.search(attributes)
    if iota:
        ids = _ordered(iota[2], iota[3]).reshape(_numbers(iota[1]))
        return tuple(tuple(row) for row in ids.tolist())
    listed = _GROUPS.search(attributes) or _PAIRS.search(attributes)
    if listed and listed[1]:
        return tuple(_numbers(group) for group in re.findall(r"\{([\d, ]*)\}", listed[1]))
    return ()


def _ordered(shape: str, transposed: str | None) -> NDArray[np.int64]:
    """Device numbers counted up in `shape`, its axes then exchanged."""
    sizes = _numbers(shape)
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    return ids.transpose(_numbers(transposed)) if transposed else ids


def _mesh_groups(
    mesh: str, shape: str | None, transposed: str | None, along: str
) -> tuple[tuple[int, ...], ...]:
    """Groups given as axes of a mesh, `mesh['a'=2,'b'=4] {'b'}`; `'b':(2)2` is part of an axis."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    ids = np.arange(math.prod(sizes.values())) if shape is None else _ordered(shape, transposed)
    ids = ids.reshape(tuple(sizes.values()))
    grouped, cut, kept = [], [], 0
    wanted = {name: (before, size) for name, before, size in _MESH_AXIS.findall(along)}
    for name, size in sizes.items():
        before, part = wanted.get(name, ("", ""))
        parts = [int(before), int(part), size // int(before) // int(part)] if part else [size]
        if name in wanted:
            grouped.append(kept + (1 if part else 0))
        cut += parts
        kept += len(parts)
    ids = ids.reshape(cut)
    group = math.prod(cut[axis] for axis in grouped)
    ids = np.moveaxis(ids, grouped, range(-len(grouped), 0))
    return tuple(tuple(row) for row in ids.reshape(-1, group).tolist())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.replace(" ", "").split(",") if number)
