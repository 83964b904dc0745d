"""The table of names covers every parameter, once, and converts both ways without a change."""

import flax.traverse_util
import numpy as np
import pytest

from mobilebert_jax.interop import parameter_names, shapes
from mobilebert_jax.interop.model import Kind
from mobilebert_jax.model import sizes
from tests.interop import exchanged

ALL = exchanged.CONFIGS | exchanged.OTHERS
SQUEEZED = ("squeezebert", "tensorflow")
"""Of which the authors of MobileBERT have none."""


@pytest.mark.parametrize(
    ("name", "naming"),
    [(n, f) for n in ALL for f in ("huggingface", "tensorflow") if (n, f) != SQUEEZED],
)
def test_names_and_layouts_convert_both_ways(name: str, naming: parameter_names.Naming) -> None:
    config = ALL[name]
    params = exchanged.make(config, "pretraining").params
    tensors = parameter_names.to_tensors(config, "pretraining", naming, params)
    assert {name: array.shape for name, array in tensors.items()} == shapes.theirs(
        config, "pretraining", 0, naming
    )
    found = parameter_names.to_params(config, "pretraining", naming, tensors)
    np.testing.assert_equal(found, params)


@pytest.mark.parametrize("kind", exchanged.LABELS)
def test_every_kind_has_its_own_head_and_no_other(kind: Kind) -> None:
    config = exchanged.CONFIGS["pooler"]
    params = exchanged.make(config, kind).params
    tensors = parameter_names.to_tensors(config, kind, "huggingface", params)
    assert all(tensors)
    np.testing.assert_equal(parameter_names.to_params(config, kind, "huggingface", tensors), params)
    heads = {"masked_lm", "next_sentence", "task"} & set(params)
    expected: dict[Kind, set[str]] = {
        "bare": set(),
        "masked_lm": {"masked_lm"},
        "next_sentence": {"next_sentence"},
        "pretraining": {"masked_lm", "next_sentence"},
    }
    assert heads == expected.get(kind, {"task"})
    assert bool(parameter_names.tied(config, kind)) == ("masked_lm" in heads)


def test_dense_kernels_lie_the_other_way_round_in_hugging_face() -> None:
    config = exchanged.CONFIGS["released"]
    params = exchanged.make(config, "pretraining").params
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    theirs = parameter_names.to_tensors(config, "pretraining", "huggingface", params)
    authors = parameter_names.to_tensors(config, "pretraining", "tensorflow", params)
    value = flat["blocks/attention/value/kernel"][1]
    np.testing.assert_array_equal(
        theirs["mobilebert.encoder.layer.1.attention.self.value.weight"], value.T
    )
    np.testing.assert_array_equal(
        authors["bert/encoder/layer_1/attention/self/value/kernel"], value
    )
    last = flat["blocks/feedforward_2_in/bias"][0]
    np.testing.assert_array_equal(
        theirs["mobilebert.encoder.layer.0.intermediate.dense.bias"], last
    )
    extra = flat["masked_lm/extra"]
    np.testing.assert_array_equal(theirs["cls.predictions.dense.weight"], extra.T)
    np.testing.assert_array_equal(authors["cls/predictions/extra_output_weights"], extra)


def test_groups_are_convolutions_of_width_1_in_hugging_face() -> None:
    """Output g * out + o of a convolution in groups reads group g of the inputs."""
    config = exchanged.CONFIGS["squeezebert"]
    blocks = exchanged.make(config, "masked_lm").params["blocks"]
    theirs = parameter_names.to_tensors(
        config, "masked_lm", "huggingface", exchanged.make(config, "masked_lm").params
    )
    layer = "transformer.encoder.layers.1"
    key, weight = blocks["attention"]["key"]["kernel"][1], theirs[f"{layer}.attention.key.weight"]
    assert (key.shape, weight.shape) == ((2, 8, 8), (16, 8, 1))
    assert weight[8 + 3, 5, 0] == key[1, 5, 3]
    dense, weight = (
        blocks["attention_output"]["kernel"],
        theirs[f"{layer}.post_attention.conv1d.weight"],
    )
    assert weight.shape == (16, 16, 1)
    np.testing.assert_array_equal(weight[..., 0], dense[1].T)


def test_a_published_network_has_its_published_number_of_tensors() -> None:
    assert len(shapes.theirs(sizes.MOBILEBERT, "question_answering", 2, "huggingface")) == 1113
    assert len(shapes.theirs(sizes.MOBILEBERT, "pretraining", 0, "tensorflow")) == 1119


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("released", "mobilebert"),
        ("teacher", "mobilebert"),
        ("without_bottlenecks", "mobilebert"),
        ("bert", "bert"),
        ("squeezebert", "squeezebert"),
    ],
)
def test_only_a_bert_goes_by_the_names_of_bert(name: str, body: str) -> None:
    config = ALL[name]
    assert parameter_names.huggingface_body(config) == body
    prefix = "transformer" if body == "squeezebert" else body
    found = shapes.theirs(config, "token_classification", 2, "huggingface")
    assert all(name.startswith((f"{prefix}.", "classifier.")) for name in found)


def test_a_missing_tensor_is_named() -> None:
    config = exchanged.CONFIGS["released"]
    params = exchanged.make(config, "bare").params
    tensors = parameter_names.to_tensors(config, "bare", "huggingface", params)
    name = "encoder.layer.1.ffn.1.output.dense.weight"
    del tensors[name]
    with pytest.raises(KeyError, match=name):
        parameter_names.to_params(config, "bare", "huggingface", tensors)
