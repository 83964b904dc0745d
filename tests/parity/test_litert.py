"""LiteRT files compute what our networks do, in float32, and nearly so in 8 bits."""

import collections
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilebert_jax.config.schema import INT8_PARTS, InputError
from mobilebert_jax.export import formats
from mobilebert_jax.export.subjects import Subject
from mobilebert_jax.interop import forward, verification
from mobilebert_jax.interop.litert import model as litert
from mobilebert_jax.interop.litert import parts
from mobilebert_jax.interop.litert.graph import Graph
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.interop.verification import Verified
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


def full_integer(model: Model, path: Path, **settings: Any) -> Verified:
    examples = calibration(model)
    return litert.export(model, path, length=LENGTH, mode="int8", calibration=examples, **settings)


@pytest.mark.parametrize(
    "name", ["released", "relu6", "layer_norm", "pooler", "teacher", "squeezebert"]
)
def test_full_integer_leaves_lookups_and_layer_norm_in_float32(name: str, tmp_path: Path) -> None:
    model = network(name, "bare")
    verified = full_integer(model, tmp_path / "network.tflite", float_parts=())
    inside_norms = {"ADD", "MEAN", "MUL", "RESHAPE", "RSQRT", "SUB"}
    floats = inside_norms if model.config.normalization_type == "layer_norm" else set()
    mean = {"DIV", "MAXIMUM", "MUL", "SUM"}
    assert set(verified.float_operations) == {"CAST", "EMBEDDING_LOOKUP"} | floats | mean
    assert verified.differences["sequence_output"].max_rel < 0.2
    assert verified.differences["embedding"].max_rel < 0.2


@pytest.mark.parametrize("name", CONFIGS)
def test_every_operation_of_a_network_is_of_one_part(name: str) -> None:
    model = network(name, KIND_OF[name])
    config = model.config
    found = collections.Counter()
    for operation, names in Graph(litert.converted(model, LENGTH, mask="clipped")).operations():
        of = [part for part in INT8_PARTS if re.search(parts.names_of(part), names)]
        assert len(of) == 1 or operation in ("CAST", "PAD", "SLICE", "MINIMUM"), names
        found[of[0] if of else None, operation] += 1
    layers, feedforwards = config.num_hidden_layers, config.num_feedforward_networks
    bottlenecks = {"shared_bottleneck": 3}.get(config.query_key, 2) * config.use_bottleneck
    expected = {
        ("query_key_value", "FULLY_CONNECTED"): config.q_groups + config.k_groups + config.v_groups,
        ("attention_scores", "SOFTMAX"): 1,
        ("attention_context", "BATCH_MATMUL"): 1,
        ("attention_output", "FULLY_CONNECTED"): config.post_attention_groups,
        ("attention_residual", "ADD"): 1,
        ("feedforward_input", "FULLY_CONNECTED"): feedforwards * config.intermediate_groups,
        ("feedforward_output", "FULLY_CONNECTED"): feedforwards * config.output_groups,
        ("feedforward_residual", "ADD"): feedforwards,
        ("bottlenecks", "FULLY_CONNECTED"): bottlenecks,
        ("bottlenecks", "ADD"): int(config.use_bottleneck),
    }
    assert {key: found[key] for key in expected} == {k: n * layers for k, n in expected.items()}


KEPT = {
    "query_key_value": {"FULLY_CONNECTED": 6},
    "attention_scores": {"BATCH_MATMUL": 2, "SOFTMAX": 2},
    "feedforward_input": {"FULLY_CONNECTED": 2, "GELU": 2},
    "feedforward_output": {"FULLY_CONNECTED": 2},
    "feedforward_residual": {"ADD": 2},
    "head": {"FULLY_CONNECTED": 2, "TANH": 1},
}
"""What is float32 in a BERT of two blocks because of each part alone."""


@pytest.mark.parametrize("part", KEPT)
def test_the_parts_that_are_named_stay_in_float32(part: str, tmp_path: Path) -> None:
    model = network("bert", "sequence_classification")
    least, more = (
        collections.Counter(
            full_integer(model, tmp_path / part, float_parts=parts).float_operations
        )
        for parts in ((), (part,))
    )
    gained = more - least
    assert {name: gained[name] for name in KEPT[part]} == KEPT[part]
    assert not least - more


def test_a_feature_that_is_far_larger_than_the_others_is_borne(tmp_path: Path) -> None:
    model = network("bert", "sequence_classification")
    blocks, largest = model.params["blocks"], np.arange(16) == 3
    blocks["feedforward_0_out"]["kernel"] *= np.where(largest, 300.0, 1.0)
    blocks["feedforward_0_norm"]["scale"] *= np.where(largest, 0.01, 75.0)
    examples = calibration(model, 60)
    ours = verification.ours(model, examples, mask="clipped")["logits"]

    def error(**settings: Any) -> float:
        full_integer(model, tmp_path / "file", **settings)
        logits = litert.runner(tmp_path / "file")(examples)["logits"]
        return float(np.abs(logits - ours).mean())

    assert error() < 0.5 * error(float_parts=())


def test_a_part_that_the_network_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="called like bottlenecks"):
        full_integer(
            network("bert", "bare"), tmp_path / "file", float_parts=("bottlenecks", "embeddings")
        )
    assert not list(tmp_path.iterdir())


def test_networks_with_no_norm_are_of_integers_by_default(tmp_path: Path) -> None:
    model = network("released", "sequence_classification")
    for name, settings in (("default", {}), ("all", {"float_parts": ()})):
        full_integer(model, tmp_path / name, **settings)
    assert (tmp_path / "default").read_bytes() == (tmp_path / "all").read_bytes()


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


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("default",), "computes feedforward_output, feedforward_residual in float32"),
        (("head",), "computes head in float32"),
        ((), "computes no more than it must in float32"),
    ],
)
def test_an_export_says_what_it_leaves_in_float32(
    settings: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    model = network("bert", "sequence_classification")
    subject = Subject("bert", tmp_path, model, None, None, LENGTH, calibration(model))
    result = formats.write("litert_int8", subject, tmp_path, settings)
    assert said in "".join(result["notes"])
    dense = {"default": 2, "head": 2}.get(settings[0] if settings else "", 0)
    assert result["float_operations"].get("FULLY_CONNECTED", 0) == dense
