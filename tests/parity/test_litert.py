"""LiteRT files compute what our networks do, in float32, and nearly so in 8 bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop import forward
from mobilebert_jax.interop.litert import model as litert
from mobilebert_jax.interop.model import Kind, Model
from tests.interop import exchanged

pytestmark = pytest.mark.parity

CONFIGS = exchanged.CONFIGS | exchanged.OTHERS
KIND_OF = dict(zip(CONFIGS, [*exchanged.LABELS, *exchanged.LABELS], strict=False))
"""Every form of the network, and every kind at least once."""
LENGTH = 8


def network(name: str, kind: Kind) -> Model:
    return exchanged.make(CONFIGS[name], kind)._replace(tokenizer=None)


def calibration(model: Model, rows: int = 24) -> forward.Inputs:
    generator = np.random.default_rng(0)
    lengths_N = generator.integers(2, LENGTH + 1, rows)
    mask_NT = (np.arange(LENGTH) < lengths_N[:, None]).astype(np.int32)
    ids_NT = generator.integers(0, model.config.vocab_size, mask_NT.shape).astype(np.int32)
    return forward.Inputs(ids_NT * mask_NT, mask_NT, np.zeros_like(mask_NT))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_network_computes_the_same(name: str, tmp_path: Path) -> None:
    model = network(name, KIND_OF[name])
    verified = litert.export(model, tmp_path / "network.tflite", length=LENGTH)
    shown = forward.app_output(model)
    expected = {*forward.output_names(model.kind), *([shown] if shown else [])}
    assert set(verified.differences) == expected
    assert max(difference.max_rel for difference in verified.differences.values()) < 1e-5
    assert verified.bytes == (tmp_path / "network.tflite").stat().st_size


def test_8_bits_of_weights_take_tables_and_kernels(tmp_path: Path) -> None:
    model = network("large_vocabulary", "masked_lm")
    sizes = {
        mode: litert.export(model, tmp_path / mode, length=LENGTH, mode=mode).bytes
        for mode in ("float32", "weight_int8")
    }
    table = model.params["embeddings"]["word"].size + model.params["masked_lm"]["extra"].size
    # 3 bytes of 4, less the scale and zero point of 12 bytes that each row of 8 values has.
    assert sizes["float32"] - sizes["weight_int8"] > 1.4 * table


@pytest.mark.parametrize(
    "name", ["released", "relu6", "layer_norm", "pooler", "teacher", "squeezebert"]
)
def test_full_integer_leaves_lookups_and_layer_norm_in_float32(name: str, tmp_path: Path) -> None:
    model = network(name, "bare")
    verified = litert.export(
        model,
        tmp_path / "network.tflite",
        length=LENGTH,
        mode="int8",
        calibration=calibration(model),
    )
    inside_norms = {"ADD", "MEAN", "MUL", "RESHAPE", "RSQRT", "SUB"}
    floats = inside_norms if model.config.normalization_type == "layer_norm" else set()
    mean = {"DIV", "MAXIMUM", "MUL", "SUM"}
    assert set(verified.float_operations) == {"CAST", "EMBEDDING_LOOKUP"} | floats | mean
    assert verified.differences["sequence_output"].max_rel < 0.2
    assert verified.differences["embedding"].max_rel < 0.2


def test_weights_of_8_bits_are_nearer_to_ours_where_activations_stay_float(tmp_path: Path) -> None:
    model = network("released", "bare")
    near, far = (
        litert.export(model, tmp_path / mode, length=LENGTH, mode=mode)
        for mode in ("weight_int8", "dynamic_int8")
    )
    output = "sequence_output"
    assert 0 < near.differences[output].max_rel < far.differences[output].max_rel < 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "int8"}, "needs calibration examples"),
        ({"mode": "int4"}, r"'int4' is not one of .*nearest: int8"),
        ({"length": 17}, "positions for 1 to 16"),
    ],
)
def test_impossible_files_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        litert.export(
            network("tiny", "bare"), tmp_path / "network.tflite", **({"length": LENGTH} | settings)
        )
    assert list(tmp_path.iterdir()) == []


def test_calibration_examples_of_another_length_are_refused(tmp_path: Path) -> None:
    model = network("tiny", "bare")
    with pytest.raises(InputError, match="have length 8; the file has 4"):
        litert.export(
            model,
            tmp_path / "network.tflite",
            length=4,
            mode="int8",
            calibration=calibration(model),
        )
