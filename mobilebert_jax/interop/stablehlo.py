"""StableHLO files: the network as one program for any JAX, and for any compiler of StableHLO.

`jax.export.deserialize(bytearray(path.read_bytes())).call(ids, mask, segments)` runs a file without
this project; `.mlir_module_serialized` of it is StableHLO's portable bytecode.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import forward, verification
from mobilebert_jax.interop.forward import Inputs, Mask
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.verification import Runner, Verified

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    model: Model,
    path: Path,
    *,
    length: int | None = None,
    batch: int | None = None,
    platforms: tuple[str, ...] = PLATFORMS,
    mask: Mask = "additive",
) -> Verified:
    """Writes a file with the inputs of `forward.INPUTS`, int32 [batch, length] each.

    Args:
      model: the network.
      path: where the file goes.
      length: T; None leaves it open up to the network's number of positions.
      batch: rows; None leaves it open.
      platforms: where the program can run.
      mask: how padding is hidden.

    Raises InputError for a missing package, an impossible length, and for a file that differs from
    ours.
    """
    verification.package("flatbuffers")
    if length is not None:
        forward.check_length(model, length)
    if batch is not None and batch < 1:
        raise InputError(f"batch {batch} must be at least 1, or None to leave it open")
    most = model.config.max_positions
    # A symbol that no shape has could not be bound when the program runs.
    if length is None:
        b, t = jax.export.symbolic_shape("b, t", constraints=[f"t <= {most}"])
    else:
        (b,), t = jax.export.symbolic_shape("b"), length
    spec = jax.ShapeDtypeStruct((batch or b, t), jnp.int32)
    function = jax.jit(forward.function(model, mask=mask))
    # The platform that runs here too, since the file is compared with ours before it is published.
    wanted = tuple(dict.fromkeys((*platforms, "cpu")))
    exported = jax.export.export(function, platforms=wanted)(spec, spec, spec)
    inputs = verification.examples(model, length or min(64, most))
    if batch is not None:
        inputs = Inputs(*(np.resize(array, (batch, array.shape[1])) for array in inputs))
    return verification.publish(
        model, path, bytes(exported.serialize()), runner, inputs=inputs, mask=mask
    )


def runner(path: Path) -> Runner:
    """Returns a function that runs a file on all rows at once, on this machine's CPU."""
    exported = jax.export.deserialize(bytearray(path.read_bytes()))

    def run(inputs: Inputs) -> dict[str, np.ndarray]:
        with (
            jax.default_device(jax.local_devices(backend="cpu")[0]),
            jax.default_matmul_precision("highest"),
        ):
            found = jax.jit(exported.call)(*map(jnp.asarray, inputs))
        return {name: np.asarray(array) for name, array in found.items()}

    return run
