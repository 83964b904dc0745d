"""The hardware that `--plan` names: `v3:8x16`, `v4-128`, `2xv5e:16x16`, `h100x8`.

v5e:16x16     a slice by its shape in chips, as libtpu writes it
v4-128        a slice as the cloud sells it: v2, v3, v4, v5p and tpu7x count TensorCores, two a
              chip; v5e and v6e count chips
2xv5e-256     several slices joined by the data-centre network
h200x8        GPUs, eight a host; nothing is compiled for them
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.sharding.chips import CHIPS, Chip

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_FLAT_SQUARES = ("2x2", "4x4", "4x8", "8x8", "8x16", "16x16")
_SOLID = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")


@dataclasses.dataclass(frozen=True)
class Family:
    """TPU slices of one kind: what they are made of, and how they are named."""

    chip: str
    libtpu: str
    """Prefix of a topology's name in libtpu."""
    shapes: tuple[str, ...]
    """Usual slices, by their shape in chips, the smallest first."""
    counts_cores: bool
    """Whether the cloud's name counts TensorCores, two a chip, instead of chips."""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What libtpu must be told so that a chip shows as many devices as it does in the cloud."""

    @property
    def dimensions(self) -> int:
        return self.shapes[0].count("x") + 1


_MEGACORE = {"chip_config_name": "megacore"}
FAMILIES = {
    "v2": Family("v2", "v2", (*_FLAT_SQUARES,), counts_cores=True),
    "v3": Family("v3", "v3", (*_FLAT_SQUARES, "16x32", "32x32"), counts_cores=True),
    "v4": Family("v4", "v4", (*_SOLID, "8x16x16"), counts_cores=True, options=_MEGACORE),
    "v5e": Family("v5e", "v5e", _FLAT, counts_cores=False),
    "v5p": Family("v5p", "v5p", (*_SOLID, "8x16x16"), counts_cores=True),
    "v6e": Family("v6e", "v6e", _FLAT, counts_cores=False),
    "tpu7x": Family("7x", "tpu7x", (*_SOLID, "8x16x16"), counts_cores=True),
}
_OTHER_NAMES = {"v5litepod": "v5e", "v5": "v5p", "v6": "v6e", "7x": "tpu7x", "v7x": "tpu7x"}
GPUS = tuple(name for name in CHIPS if re.match(r"[abh]\d{3}", name))


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind, in slices (TPU) or hosts (GPU) that the data-centre network joins."""

    name: str
    chip: Chip
    chips_per_slice: int
    slices: int
    libtpu: str | None = None
    """The slice's name in libtpu; None where no compiler for it runs without the hardware."""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def chips(self) -> int:
        return self.chips_per_slice * self.slices

    @property
    def devices(self) -> int:
        return self.chips * self.chip.devices

    @property
    def hosts_per_slice(self) -> int:
        return max(1, self.chips_per_slice // self.chip.chips_per_host)


def parse(name: str) -> Topology:
    """Returns the hardware that `name` asks for; raises InputError naming the nearest valid."""
    match = re.fullmatch(r"(?:(\d+)x)?(.+)", name.strip().lower())
    slices, slice_name = (int(match[1] or 1), match[2]) if match else (1, name)
    gpus = re.fullmatch(rf"({'|'.join(GPUS)})x(\d+)", slice_name)
    if gpus:
        return _gpus(name, CHIPS[gpus[1]], int(gpus[2]) * slices)
    shaped = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", slice_name)
    counted = re.fullmatch(r"([a-z0-9]+)-(\d+)", slice_name)
    found = shaped or counted
    if not found or _family(found[1]) is None or slices < 1:
        raise InputError(_unknown(name, slice_name))
    family = _family(found[1])
    assert family is not None
    shape = found[2] if shaped else _shape(family, int(found[2]))
    if shape is None or shape.count("x") + 1 != family.dimensions:
        raise InputError(_unknown(name, slice_name, family))
    return Topology(
        name,
        CHIPS[family.chip],
        math.prod(int(size) for size in shape.split("x")),
        slices,
        f"{family.libtpu}:{shape}",
        tuple(family.options.items()),
    )


def known_names() -> list[str]:
    """Returns the usual slices under both of their names, and GPUs by the host."""
    names = []
    for key, family in FAMILIES.items():
        for shape in family.shapes:
            names += [f"{key}:{shape}", f"{key}-{_count(family, shape)}"]
    return names + [f"{gpu}x{count}" for gpu in GPUS for count in (1, 8, 64)]


def _gpus(name: str, chip: Chip, count: int) -> Topology:
    per_host = chip.chips_per_host
    if count < 1 or (count > per_host and count % per_host):
        rounded = max(1, round(count / per_host)) * per_host
        raise InputError(
            f"--plan={name}: GPUs come {per_host} to a host; nearest is {chip.name}x{rounded}"
        )
    return Topology(name, chip, min(count, per_host), max(1, count // per_host))


def _family(name: str) -> Family | None:
    return FAMILIES.get(_OTHER_NAMES.get(name, name))


def _count(family: Family, shape: str) -> int:
    chips = math.prod(int(size) for size in shape.split("x"))
    return 2 * chips if family.counts_cores else chips


def _shape(family: Family, count: int) -> str | None:
    return next((shape for shape in family.shapes if _count(family, shape) == count), None)


def _unknown(name: str, slice_name: str, family: Family | None = None) -> str:
    if family is None:
        hint = f"the nearest is {nearest(slice_name, known_names())}"
    else:
        shapes = ", ".join(f"{_count(family, shape)} ({shape})" for shape in family.shapes)
        unit = "TensorCores" if family.counts_cores else "chips"
        names = [f"{key}-{_count(f, s)}" for key, f in FAMILIES.items() for s in f.shapes]
        names += [f"{family.libtpu}:{shape}" for shape in family.shapes]
        names = [name for name in names if name.startswith(family.libtpu)]
        hint = (
            f"the nearest is {nearest(slice_name, names)}; slices of {family.libtpu}, in {unit} "
            f"and by shape in chips: {shapes}"
        )
    return f"--plan={name!r} names no hardware that can be planned for; {hint}"
