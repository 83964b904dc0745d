"""The one table from logical axes to mesh axes, and the shardings that follow from it."""

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import NamedSharding, PartitionSpec

from mobilebert_jax.config import InputError

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", ("data", "fsdp")),
    ("layers", None),
    ("vocab", "model"),
    ("embed", "fsdp"),
    ("hidden", "fsdp"),
    ("bottleneck", None),
    ("heads", "model"),
    ("intermediate", "model"),
    ("transform", None),
    ("pooled", None),
    ("position", None),
    ("type", None),
    ("classes", None),
)


def parameter_shardings(boxed: Any, mesh: jax.sharding.Mesh) -> Any:
    """Returns the sharding of every parameter, from its logical axes.

    Raises InputError naming axis, size and divisors where a size does not divide.
    """
    specs = nn.logical_to_mesh(nn.get_partition_spec(boxed), RULES)
    shardings = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )
    jax.tree_util.tree_map_with_path(_check, nn.unbox(boxed), shardings)
    return shardings


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


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())
