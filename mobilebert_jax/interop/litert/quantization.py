"""LiteRT files in 8 bits: calibration of activation ranges, and the quantiser's recipe."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mobilebert_jax.interop import verification
from mobilebert_jax.interop.forward import APP_OUTPUTS, APP_SCOPE, INPUTS, Inputs
from mobilebert_jax.interop.litert import parts
from mobilebert_jax.interop.litert.graph import Graph
from mobilebert_jax.model.attention import QUANTIZED_SCORES
from mobilebert_jax.model.sizes import ModelConfig

SIGNATURE = "serving_default"


def rows_of(inputs: Inputs) -> Iterator[dict[str, np.ndarray]]:
    """Yields what a file reads at a time, by the names of its inputs."""
    for row in range(len(inputs.input_ids_NT)):
        yield dict(zip(INPUTS, inputs.rows(row, row + 1), strict=True))


def weights_in_8_bits(content: bytes, *, floating: bool) -> bytes:
    """Returns a float32 file with its weights in 8 bits, computed with in float32 if `floating`."""
    recipes = verification.package("ai_edge_quantizer.recipe")
    recipe = recipes.weight_only_wi8_afp32() if floating else recipes.dynamic_wi8_afp32()
    return _quantized(content, recipe, None)


class Calibrated(NamedTuple):
    """A float32 file that can be quantised, and what its tensors hold."""

    content: bytes
    ranges: dict[str, dict[str, np.ndarray]]
    """The least and the largest value, "min" and "max", by tensor."""


def calibrated(content: bytes, calibration: Inputs) -> Calibrated:
    """Returns a float32 file with the ranges that `calibration` shows."""
    graph = Graph(content)
    graph.flatten_biases()
    scores = graph.drop_minima()
    ranges = _ranges(graph.content(), calibration)
    for name in scores:
        ranges[name]["max"] = np.minimum(ranges[name]["max"], QUANTIZED_SCORES[1])
    return Calibrated(graph.content(), ranges)


def all_in_8_bits(
    config: ModelConfig, calibrated: Calibrated, floating: Iterable[str] = ()
) -> bytes:
    """Returns a float32 file as one of 8-bit integers.

    Args:
      config: of the network.
      calibrated: the file and its ranges.
      floating: regular expressions (`parts.names_of`) of the names of operations that stay in
        float32; their kernels and tables are of 8 bits, with activations rounded as they come.
    """
    recipe = _integer_recipe(config, floating).get_quantization_recipe()
    quantized = Graph(_quantized(calibrated.content, recipe, calibrated.ranges))
    quantized.name_outputs()
    return quantized.content()


def _ranges(content: bytes, calibration: Inputs) -> dict[str, dict[str, np.ndarray]]:
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
            calibrator.calibrate({SIGNATURE: list(rows_of(calibration))}, _all_static())
    found: dict[str, dict[str, np.ndarray]] = calibrator.get_model_qsvs()
    return found


def _integer_recipe(config: ModelConfig, floating: Iterable[str]) -> Any:
    """Everything in 8 bits that the quantiser can do so, and tables as with weights alone."""
    manager = _all_static()
    operation = verification.package("ai_edge_quantizer.qtyping").TFLOperationName
    floats: dict[str, Any] = {"algorithm_key": "no_quantize"}
    manager.add_dynamic_config(".*", operation.EMBEDDING_LOOKUP, 8)
    manager.add_quantization_config(".*", operation.OUTPUT, **floats)
    for names in floating:
        manager.add_quantization_config(names, operation.ALL_SUPPORTED, **floats)
        for of_weights in (operation.FULLY_CONNECTED, operation.EMBEDDING_LOOKUP):
            manager.add_dynamic_config(names, of_weights, 8)
    # Means and reciprocal roots of 8 bits were seen to double what int8 loses. The head of masked
    # LM has a LayerNorm in every network.
    norms = [parts.MASKED_LM_NORM]
    if config.normalization_type == "layer_norm":
        norms.append(parts.names_of("norms"))
    # What apps show takes no product that is worth 8 bits. Its last operation goes by the name that
    # it has in the signature.
    shown = f".*({APP_SCOPE}/|{SIGNATURE}_({'|'.join(APP_OUTPUTS)})_output).*"
    for names in (*norms, shown):
        manager.add_quantization_config(names, operation.ALL_SUPPORTED, **floats)
    return manager


def _all_static() -> Any:
    """Everything in 8 bits."""
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
