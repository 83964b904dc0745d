"""StableHLO files: the network as one program for any JAX, and for any compiler of StableHLO.

`jax.export.deserialize(bytearray(path.read_bytes())).call(ids, mask, segments)` runs a file without
this project; `.mlir_module_serialized` of it is StableHLO's portable bytecode.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.interop import forward, verification
from mobilebert_jax.interop.forward import Inputs, Mask
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.verification import Runner, Verified

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where a file runs; the CPU, on which it is compared with ours, has to be among them."""


def export(model: Model, path: Path, *, mask: Mask = "additive") -> Verified:
    """Writes a file with the inputs of `forward.INPUTS`, int32 [batch, length] each.

    Batch and length are left open, the length up to the network's number of positions. `mask` is
    how padding is hidden. Raises InputError for a missing package and for a file that differs from
    ours.
    """
    verification.package("flatbuffers")
    most = model.config.max_position_embeddings
    shape = jax.export.symbolic_shape("b, t", constraints=[f"t <= {most}"])
    spec = jax.ShapeDtypeStruct(shape, jnp.int32)
    function = jax.jit(forward.function(model, mask=mask))
    exported = jax.export.export(function, platforms=PLATFORMS)(spec, spec, spec)
    inputs = verification.examples(model, min(64, most))
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
