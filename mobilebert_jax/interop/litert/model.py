"""LiteRT (TFLite) files: float32, int8 weights, and full integer; without TensorFlow.

The program goes from JAX as StableHLO to LiteRT's converter, and what is written is run before it
gets its name. The graph reads one row of a fixed length.

Shapes: N examples, T positions.
"""

import contextlib
import io
import os
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.interop import forward, verification
from mobilebert_jax.interop.forward import INPUTS, Inputs, Mask
from mobilebert_jax.interop.litert.graph import Graph
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.verification import Runner, Verified
from mobilebert_jax.model.attention import QUANTIZED_SCORES
from mobilebert_jax.model.sizes import ModelConfig

Mode = Literal["float32", "weight_int8", "dynamic_int8", "int8"]
MODES: tuple[Mode, ...] = typing.get_args(Mode)

SIGNATURE = "serving_default"


def export(
    model: Model,
    path: Path,
    *,
    length: int,
    mode: Mode = "float32",
    calibration: Inputs | None = None,
    mask: Mask = "additive",
) -> Verified:
    """Writes a `.tflite` file with the inputs `forward.INPUTS`, int32 [1, length] each.

    "weight_int8" keeps tables and kernels in 8 bits, a scale for each row or column, and computes
    in float32, as in the paper's table of quantisation (section 4.4). "dynamic_int8" is as large,
    and rounds activations to 8 bits too, as they come: faster, and further from ours.
    "int8" computes in 8 bits throughout, with ranges that were seen on the calibration examples;
    look-ups in tables, LayerNorm (not NoNorm) and outputs stay float32, and `float_operations` of
    the result counts what does. How far such files are from ours is reported, not promised. Padding
    is hidden in the "clipped" form there, since a large negative score would take the whole range.

    Args:
      model: the network.
      path: where the file goes.
      length: T.
      mode: what is rounded to 8 bits.
      calibration: for "int8", about 100 examples of what the network will read.
      mask: how the network itself hides padding: "clipped" after training with a quantised mask.

    Raises InputError for a missing package, an impossible length or mode, no calibration examples,
    and a float32 file that differs from ours.
    """
    _check(model, length, mode, calibration)
    content = _converted(model, length, mask="clipped" if mode == "int8" else mask)
    if mode in ("weight_int8", "dynamic_int8"):
        content = _weights_in_8_bits(content, mode)
    elif calibration is not None and mode == "int8":
        content = _in_8_bits(model.config, content, calibration)
    verified = verification.publish(
        model,
        path,
        content,
        runner,
        inputs=verification.examples(model, length),
        mask=mask,
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
        made: list[dict[str, np.ndarray]] = [signature(**row) for row in _rows(inputs)]
        return {name: np.concatenate([row[name] for row in made]) for name in made[0]}

    return run


def _rows(inputs: Inputs) -> Iterator[dict[str, np.ndarray]]:
    """Yields what a file reads at a time, by the names of its inputs."""
    for row in range(len(inputs.input_ids_NT)):
        yield dict(zip(INPUTS, inputs.rows(row, row + 1), strict=True))


def _converted(model: Model, length: int, *, mask: Mask) -> bytes:
    verification.package("flatbuffers")
    ir = verification.package("litert_converter.mlir.ir")
    passes = verification.package("litert_converter.mlir.passmanager")
    stablehlo = verification.package("litert_converter.mlir.dialects.stablehlo")
    converter = verification.package("litert_converter.converter_api_ext")
    function = forward.function(model, mask=mask, named_operations=True)
    spec = jax.ShapeDtypeStruct((1, length), jnp.int32)
    exported = jax.export.export(jax.jit(function), platforms=("cpu",))(spec, spec, spec)
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, ir.Location.unknown():
        module = stablehlo.deserialize_portable_artifact(context, exported.mlir_module_serialized)
        converter.set_signature(
            module.operation, SIGNATURE, list(INPUTS), list(forward.output_names(model.kind))
        )
        converter.run_convert_to_tfl_passes(
            module, passes.PassManager(), converter.ConvertToTFLConfig()
        )
        content: bytes = converter.export_flatbuffer_to_bytes(module.operation)
    return content


def _weights_in_8_bits(content: bytes, mode: Mode) -> bytes:
    recipes = verification.package("ai_edge_quantizer.recipe")
    floating = mode == "weight_int8"
    recipe = recipes.weight_only_wi8_afp32() if floating else recipes.dynamic_wi8_afp32()
    return _quantized(content, recipe, None)


def _in_8_bits(config: ModelConfig, content: bytes, calibration: Inputs) -> bytes:
    graph = Graph(content)
    graph.flatten_biases()
    scores = graph.drop_minima()
    recipe = _integer_recipe(config)
    ranges = _ranges(graph.content(), recipe, calibration)
    for name in scores:
        ranges[name]["max"] = np.minimum(ranges[name]["max"], QUANTIZED_SCORES[1])
    return _quantized(graph.content(), recipe.get_quantization_recipe(), ranges)


def _ranges(content: bytes, recipe: Any, calibration: Inputs) -> dict[str, dict[str, np.ndarray]]:
    """Returns the least and the largest value of every tensor over all examples.

    The quantiser's own average over examples would cut off what only some of them have: padding.
    """
    module = verification.package("ai_edge_quantizer.calibrator")
    update = verification.package("ai_edge_quantizer.utils.qsv_utils").min_max_update
    with warnings.catch_warnings():
        # Of the memory that keeping every tensor takes, which calibration is about.
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        calibrator = module.Calibrator(
            content, num_threads=os.cpu_count() or 1, qsv_update_func=update
        )
        with _quiet():
            calibrator.calibrate({SIGNATURE: list(_rows(calibration))}, recipe)
    found: dict[str, dict[str, np.ndarray]] = calibrator.get_model_qsvs()
    return found


def _integer_recipe(config: ModelConfig) -> Any:
    """Everything in 8 bits that the quantiser can do so, and tables as with weights alone."""
    manager = verification.package("ai_edge_quantizer.recipe_manager").RecipeManager()
    types = verification.package("ai_edge_quantizer.qtyping")
    operation = types.TFLOperationName
    manager.add_static_config(".*", operation.ALL_SUPPORTED, 8, 8)
    # Scales and shifts of NoNorm are constants of these; one scale for each of their values makes a
    # file that the interpreter refuses.
    for elementwise in (operation.ADD, operation.MUL, operation.SUB):
        manager.add_static_config(
            ".*", elementwise, 8, 8, weight_granularity=types.QuantGranularity.TENSORWISE
        )
    manager.add_dynamic_config(".*", operation.EMBEDDING_LOOKUP, 8)
    floats: dict[str, Any] = {"algorithm_key": "no_quantize"}
    # Means and reciprocal roots of 8 bits were seen to double what int8 loses. The head of masked
    # LM has a LayerNorm in every network.
    norms = ".*norm/.*" if config.norm == "layer_norm" else ".*MaskedLM/norm/.*"
    manager.add_quantization_config(norms, operation.ALL_SUPPORTED, **floats)
    manager.add_quantization_config(".*", operation.OUTPUT, **floats)
    return manager


def _quiet() -> contextlib.AbstractContextManager[Any]:
    """Keeps the quantiser's bars of progress, which no setting turns off, from the console."""
    return contextlib.redirect_stderr(io.StringIO())


def _quantized(content: bytes, recipe: Any, ranges: Any) -> bytes:
    module = verification.package("ai_edge_quantizer.quantizer")
    with _quiet():
        result = module.Quantizer(bytearray(content), recipe).quantize(
            ranges, enable_progress_bar=False, enable_progress_report=False
        )
    return bytes(result.quantized_model)
