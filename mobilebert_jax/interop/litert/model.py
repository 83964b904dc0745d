"""LiteRT (TFLite) files: float32, int8 weights, and full integer; without TensorFlow.

The program goes from JAX as StableHLO to LiteRT's converter, and what is written is run before it
gets its name. The graph reads one row of a fixed length.

Shapes: N examples, T positions.
"""

import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.config.schema import INT8_DEFAULT, InputError, nearest
from mobilebert_jax.interop import forward, verification
from mobilebert_jax.interop.forward import INPUTS, Inputs, Mask
from mobilebert_jax.interop.litert import apps, metadata, parts, quantization
from mobilebert_jax.interop.litert.graph import Graph
from mobilebert_jax.interop.litert.quantization import SIGNATURE, rows_of
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.sentence_vector import MEAN, Pooling
from mobilebert_jax.interop.verification import Runner, Verified

Mode = Literal["float32", "weight_int8", "dynamic_int8", "int8"]
MODES: tuple[Mode, ...] = typing.get_args(Mode)


def export(
    model: Model,
    path: Path,
    *,
    length: int,
    mode: Mode = "float32",
    calibration: Inputs | None = None,
    mask: Mask = "additive",
    pooling: Pooling = MEAN,
    for_apps: bool = False,
    float_parts: Iterable[str] = (INT8_DEFAULT,),
) -> Verified:
    """Writes a `.tflite` file with the inputs `forward.INPUTS`, int32 [1, length] each.

    Its first output is what an app shows (`forward.app_output`).

    "weight_int8" keeps tables and kernels in 8 bits, a scale for each row or column, and computes
    in float32, as in the paper's table of quantisation (section 4.4). "dynamic_int8" is as large,
    and rounds activations to 8 bits too, as they come: faster, and further from ours.
    "int8" computes in 8 bits throughout, with ranges that were seen on the calibration examples;
    look-ups in tables, LayerNorm (not NoNorm), outputs and `float_parts` stay float32, and
    `float_operations` of the result counts what does. How far such files are from ours is reported,
    not promised. Padding is hidden in the "clipped" form there, since a large negative score would
    take the whole range.

    Args:
      model: the network.
      path: where the file goes.
      length: T.
      mode: what is rounded to 8 bits.
      calibration: for "int8", about 100 examples of what the network will read.
      mask: how the network itself hides padding: "clipped" after training with a quantised mask.
      pooling: how a network without a head makes one vector of a text.
      for_apps: puts metadata, vocabulary and labels into the file; `apps.fit` says for which
        networks they are true.
      float_parts: for "int8", names of `INT8_PARTS`, or "default" for `parts.DEFAULTS`. Their
        kernels are of 8 bits, and what is multiplied with them is rounded as it comes.

    Raises InputError for a missing package, an impossible length, mode or part, a part that the
    network does not have, no calibration, and a float32 file that differs from ours.
    """
    _check(model, length, mode, calibration)
    floating = parts.chosen(model.config, float_parts)
    content = converted(model, length, "clipped" if mode == "int8" else mask, pooling)
    if mode in ("weight_int8", "dynamic_int8"):
        content = quantization.weights_in_8_bits(content, floating=mode == "weight_int8")
    elif calibration is not None and mode == "int8":
        parts.check(floating, (names for _, names in Graph(content).operations()))
        content = quantization.all_in_8_bits(
            model.config,
            quantization.calibrated(content, calibration),
            map(parts.names_of, floating),
        )
    verified = verification.publish(
        model,
        path,
        _with_metadata(model, content) if for_apps else Graph(content).content(),
        runner,
        inputs=verification.examples(model, length),
        mask=mask,
        pooling=pooling,
        tolerance=verification.TOLERANCE if mode == "float32" else None,
    )
    if mode == "int8":
        return verified._replace(float_operations=Graph(content).float_operations())
    return verified


def _check(model: Model, length: int, mode: Mode, calibration: Inputs | None) -> None:
    forward.check_length(model, length)
    if mode not in MODES:
        raise InputError(
            f"mode {mode!r} is not one of {', '.join(MODES)}; nearest: {nearest(mode, MODES)}"
        )
    if mode != "int8":
        return
    if calibration is None or not len(calibration.input_ids_NT):
        raise InputError(
            "mode 'int8' needs calibration examples, about 100 of what the network will read"
        )
    found = calibration.input_ids_NT.shape[1]
    if found != length:
        raise InputError(f"calibration examples have length {found}; the file has {length}")


def runner(path: Path) -> Runner:
    """Returns a function that runs a file row by row."""
    interpreter = verification.package("ai_edge_litert.interpreter").Interpreter(
        model_path=str(path)
    )

    def run(inputs: Inputs) -> dict[str, np.ndarray]:
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner(SIGNATURE)
        made: list[dict[str, np.ndarray]] = [signature(**row) for row in rows_of(inputs)]
        return {name: np.concatenate([row[name] for row in made]) for name in made[0]}

    return run


def _with_metadata(model: Model, content: bytes) -> bytes:
    if model.tokenizer is None:
        raise InputError("a file for apps needs the network's tokenizer")
    description = f"A network of the MobileBERT family, {model.kind.replace('_', ' ')}"
    vocabulary = apps.vocabulary(model.tokenizer)
    return metadata.added(content, description, vocabulary, apps.labels(model))


def converted(model: Model, length: int, mask: Mask, pooling: Pooling = MEAN) -> bytes:
    """Returns the network as a float32 file that nobody has run yet; arguments as of `export`."""
    verification.package("flatbuffers")
    ir = verification.package("litert_converter.mlir.ir")
    passes = verification.package("litert_converter.mlir.passmanager")
    stablehlo = verification.package("litert_converter.mlir.dialects.stablehlo")
    converter = verification.package("litert_converter.converter_api_ext")
    function = forward.function(model, mask=mask, named_operations=True, pooling=pooling)
    spec = jax.ShapeDtypeStruct((1, length), jnp.int32)
    names = sorted(jax.eval_shape(function, spec, spec, spec))
    exported = jax.export.export(jax.jit(function), platforms=("cpu",))(spec, spec, spec)
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        module = stablehlo.deserialize_portable_artifact(context, exported.mlir_module_serialized)
        converter.set_signature(module.operation, SIGNATURE, list(INPUTS), names)
        converter.run_convert_to_tfl_passes(
            module, passes.PassManager(), converter.ConvertToTFLConfig()
        )
        content: bytes = converter.export_flatbuffer_to_bytes(module.operation)
    return content
