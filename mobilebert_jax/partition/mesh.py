"""The device mesh `(data, fsdp, model)`."""

import math

import jax
import numpy as np
from jax.sharding import AxisType

from mobilebert_jax import config as config_lib
from mobilebert_jax.config import InputError

AXES = ("data", "fsdp", "model")


def make_mesh(
    config: config_lib.Mesh, devices: list[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """Returns the mesh over all devices; an axis of -1 takes the devices that are left.

    Raises InputError when the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.model]
    given = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and given > 0 and len(devices) % given == 0:
        sizes[sizes.index(-1)] = len(devices) // given
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        wanted = ", ".join(
            f"execution.mesh.{axis}={size}" for axis, size in zip(AXES, sizes, strict=True)
        )
        divisors = [d for d in range(1, len(devices) + 1) if len(devices) % d == 0]
        raise InputError(
            f"{wanted} do not make up the {len(devices)} devices of this machine; the sizes must "
            f"multiply to {len(devices)} (its divisors: {divisors}), one of them may be -1"
        )
    # Explicit axes, the default of jax.make_mesh, make linen's Dropout and gather raise.
    return jax.make_mesh(
        tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=np.asarray(devices).tolist()
    )
