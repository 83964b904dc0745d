"""Devices of hardware that is not here: enough for the compiler, nothing can run on them."""

import importlib.util
import os
from importlib import metadata
from typing import Any

import jax
from jax.experimental import topologies

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.plan.topology import Topology

_ENVIRONMENT = {
    # Otherwise it asks the metadata server of a cloud machine, for minutes where there is none.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # A plan uses no chip: it may run beside another, and after one that was killed.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu must find when it is loaded."""


def compile_only(topology: Topology) -> list[jax.Device]:
    """Returns the devices of a TPU topology, in the order of its slices.

    Must be called before JAX has started its TPU backend. Raises InputError where libtpu is not
    installed or does not know the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"--plan={topology.name} needs the TPU compiler, the package libtpu, which runs "
            "without a TPU. Install it with\n"
            f"  .venv/bin/python -m pip install --no-deps 'libtpu=={_version()}'\n"
            "or what a TPU machine has with: ACCELERATOR=tpu launch/run.sh EXPERIMENT --plan=..."
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = dict(topology.options)
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=topology.libtpu or "", **options
        )
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"--plan={topology.name}: the TPU compiler refuses {topology.libtpu}: {error}"
        ) from error
    return list(description.devices)


def stay_off_hardware() -> None:
    """Makes JAX use the CPU, so that a plan neither waits for nor occupies an accelerator."""
    jax.config.update("jax_platforms", "cpu")


def _version() -> str:
    """The version of libtpu that this JAX was released with."""
    wanted = [line for line in metadata.requires("jax") or [] if line.startswith("libtpu")]
    return wanted[0].partition("==")[2].split(";")[0].strip() if wanted else "latest"
