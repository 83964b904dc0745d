"""The one table from logical axes to mesh axes, and the shardings that follow from it."""

from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import NamedSharding, PartitionSpec

from mobilebert_jax.config.schema import InputError

RULES: tuple[tuple[str, str | None], ...] = (
    ("layers", None),
    ("groups", "model"),
    ("vocab", "model"),
    ("heads", "model"),
    ("intermediate", "model"),
    ("embed", "fsdp"),
    ("hidden", "fsdp"),
    ("bottleneck", "fsdp"),
    ("transform", None),
    ("pooled", None),
    ("position", None),
    ("type", None),
    ("classes", None),
)
"""Where two axes of a kernel name the same mesh axis, the one named first in this table is cut: of
a kernel in groups whole groups go to a device, with the features that they read and give."""


def parameter_shardings(boxed: Any, mesh: jax.sharding.Mesh, *, cut_fsdp: bool = True) -> Any:
    """Returns the sharding of every parameter, from its logical axes.

    Vectors (biases, norms) stay whole over `fsdp`: they are a thousandth of the memory, and each
    would be a message of its own. Without `cut_fsdp` matrices do too.

    Raises InputError naming axis, size and divisors where a size does not divide.
    """

    def sharding(path: Any, box: nn.LogicallyPartitioned) -> NamedSharding:
        matrix = sum(name != "layers" for name in box.names) > 1
        spec: Any = nn.logical_to_mesh_axes(box.names, RULES)
        if not (matrix and cut_fsdp):
            spec = PartitionSpec(*(None if axis == "fsdp" else axis for axis in spec))
        found = NamedSharding(mesh, spec)
        _check(path, box.unbox(), found)
        return found

    return jax.tree_util.tree_map_with_path(
        sharding, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    )


def _check(path: Any, leaf: Any, sharding: NamedSharding) -> None:
    for size, axis in zip(leaf.shape, sharding.spec, strict=False):
        parts = sharding.mesh.shape[axis] if isinstance(axis, str) else 1
        if size % parts:
            name = "/".join(key.key for key in path)
            divisors = [d for d in range(1, size + 1) if size % d == 0]
            raise InputError(
                f"parameter {name} has an axis of {size} that mesh axis {axis!r} would cut into "
                f"{parts} parts; execution.mesh.{axis} may be one of {divisors}"
            )


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of a batch: rows over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def on(mesh: jax.sharding.Mesh) -> AbstractContextManager[Any]:
    """Returns the context in which programs for `mesh` are traced; see `keep_rows`."""
    context: AbstractContextManager[Any] = jax.sharding.use_abstract_mesh(mesh.abstract_mesh)
    return context


def keep_rows(x: jax.Array) -> jax.Array:
    """Keeps the first axis of an activation cut like the batch; does nothing outside of `on`.

    Without this the compiler may cut activations like the parameters that they meet, along their
    features, and gather the rows of all devices on each.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(("data", "fsdp"), *free))


def rows_of_process(mesh: jax.sharding.Mesh, batch_size: int) -> list[int]:
    """Returns the rows of a batch that this process's devices hold, in increasing order."""
    indices: Any = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return sorted({row for (rows,) in indices for row in range(batch_size)[rows]})


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())
