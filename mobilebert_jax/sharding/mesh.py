"""The device mesh `(data, fsdp, model)`, on one slice or on several joined by a slower network."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType
from numpy.typing import NDArray

from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.sharding import chips

AXES = ("data", "fsdp", "model")


def make_mesh(config: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Returns the mesh over all devices; an axis of -1 takes the devices that are left.

    Between slices only `data` is cut, so that what crosses the network between them is one sum of
    gradients a step. Raises InputError when the sizes do not multiply to the number of devices, or
    `data` does not divide into the slices.
    """
    devices = jax.devices() if devices is None else devices
    data, fsdp, model = axis_sizes(config, len(devices))
    slices = _slices(config.slices, devices)
    if data % len(slices):
        raise InputError(
            f"execution.mesh.data={data} does not divide into the {len(slices)} slices of this "
            f"machine, between which only data is cut; it may be {len(slices)} or a multiple of it"
        )
    shape = (data // len(slices), fsdp, model)
    parts = [_within_slice(shape, slice_) for slice_ in slices]
    # Explicit axes, the default of jax.make_mesh, make linen's Dropout and gather raise.
    return jax.sharding.Mesh(np.concatenate(parts), AXES, axis_types=(AxisType.Auto,) * 3)


def axis_sizes(config: Mesh, count: int) -> tuple[int, int, int]:
    """Returns the sizes of the axes over `count` devices; raises InputError as `make_mesh`."""
    sizes = [config.data, config.fsdp, config.model]
    given = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and given > 0 and count % given == 0:
        sizes[sizes.index(-1)] = count // given
    if min(sizes) < 1 or math.prod(sizes) != count:
        wanted = ", ".join(
            f"execution.mesh.{axis}={size}" for axis, size in zip(AXES, sizes, strict=True)
        )
        divisors = [d for d in range(1, count + 1) if count % d == 0]
        raise InputError(
            f"{wanted} do not make up the {count} devices of this machine; the sizes must "
            f"multiply to {count} (its divisors: {divisors}), one of them may be -1"
        )
    data, fsdp, model = sizes
    return data, fsdp, model


def _slices(asked: int, devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """Returns the devices by slice; devices that belong to none are cut into `asked` groups."""
    by_index: dict[int, list[jax.Device]] = {}
    for device in devices:
        by_index.setdefault(getattr(device, "slice_index", 0), []).append(device)
    found = [by_index[index] for index in sorted(by_index)]
    if len(found) == 1 and asked > 1 and len(devices) % asked == 0:
        size = len(devices) // asked
        return [list(devices[i * size : (i + 1) * size]) for i in range(asked)]
    if asked not in (0, len(found)):
        raise InputError(
            f"execution.mesh.slices={asked} does not fit this machine's {len(devices)} devices in "
            f"{len(found)} slice(s); 0 takes what there is"
        )
    return found


def _within_slice(shape: tuple[int, int, int], devices: list[jax.Device]) -> NDArray[np.object_]:
    """Lays one slice out so that neighbours in the mesh are neighbours in its network."""
    laid_out: NDArray[np.object_] = mesh_utils.create_device_mesh(
        shape, devices, allow_split_physical_axes=True
    )
    return laid_out


def check_batch(setting: str, size: int, divisor: int, what: str) -> None:
    """Raises InputError for a batch that does not divide over the `divisor` parts called `what`."""
    if size % divisor:
        raise InputError(
            f"{setting}={size} does not divide over {what} = {divisor}; "
            f"the nearest that does is {max(round(size / divisor), 1) * divisor}"
        )


def peak_flops(mesh: jax.sharding.Mesh) -> float | None:
    """Returns what all devices of the mesh can compute in a second; None for an unknown kind."""
    chip = chips.chip_of(mesh.devices.flat[0].device_kind)
    return chip.peak_flops_per_device * mesh.size if chip else None
