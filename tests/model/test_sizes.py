"""Counts of parameters, tensors and FLOPs against those of the published networks."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network
from mobilebert_jax.model.sizes import ModelConfig
from tests.model import programs


@functools.lru_cache
def shapes_of(config: ModelConfig) -> dict[str, Any]:
    return nn.unbox(jax.eval_shape(lambda: encoder.init(Network(config), jax.random.key(0))))


def count(tree: dict[str, Any]) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def with_pooler(config: ModelConfig, pooler: bool) -> ModelConfig:
    return dataclasses.replace(config, pooler=pooler)


# Encoder without pooler, with pooler, and with pooler as published plus both pretraining heads.
TOTALS = {
    "ib_bert_large": (294_205_184, 294_467_840, 306_483_516),
    "mobilebert": (24_581_888, 24_844_544, 36_597_564),
    "mobilebert_paper_form": (25_359_104, 25_621_760, 37_374_780),
    "mobilebert_tiny": (15_485_696, 15_748_352, 27_501_372),
    "bert_base": (108_891_648, 109_482_240, 110_106_428),
    "bert_large": (334_092_288, 335_141_888, 336_226_108),
    "squeezebert": (50_499_072, 51_089_664, 51_713_852),
}


@pytest.mark.parametrize("name", TOTALS)
def test_parameter_totals_are_the_published_ones(name: str) -> None:
    config = sizes.PUBLISHED[name]
    bare, pooled, pretraining = TOTALS[name]
    assert sizes.encoder_parameters(with_pooler(config, False)) == bare
    assert sizes.encoder_parameters(with_pooler(config, True)) == pooled
    assert sizes.pretraining_parameters(config) == pretraining


@pytest.mark.parametrize("name", TOTALS)
def test_parameter_trees_have_the_published_totals(name: str) -> None:
    bare, pooled, pretraining = TOTALS[name]
    shapes = shapes_of(sizes.PUBLISHED[name])
    assert count(shapes) == pretraining
    shapes = shapes_of(with_pooler(sizes.PUBLISHED[name], True))
    pooler = count(shapes["pooler"])
    assert count(shapes["embeddings"]) + count(shapes["blocks"]) == bare
    assert bare + pooler == pooled


@pytest.mark.parametrize("name", sizes.PUBLISHED)
def test_counts_from_settings_equal_those_of_the_tree(name: str) -> None:
    config = sizes.PUBLISHED[name]
    shapes = shapes_of(config)
    assert count(shapes) == sizes.pretraining_parameters(config)
    assert count(shapes["embeddings"]) == sizes.embedding_parameters(config)
    assert count(shapes["blocks"]) == config.num_hidden_layers * sizes.block_parameters(config)


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (with_pooler(sizes.IB_BERT_LARGE, False), 306_220_860),
        (with_pooler(sizes.MOBILEBERT, True), 36_860_220),
    ],
)
def test_totals_with_the_other_choice_of_pooler(config: ModelConfig, total: int) -> None:
    assert sizes.pretraining_parameters(config) == count(shapes_of(config)) == total


def test_encoder_total_with_the_multilingual_vocabulary() -> None:
    config = dataclasses.replace(sizes.MOBILEBERT, vocab_size=119_547)
    shapes = shapes_of(config)
    assert sizes.encoder_parameters(config) == 35_977_088
    assert count(shapes["embeddings"]) + count(shapes["blocks"]) == 35_977_088


def test_a_two_class_head_adds_what_the_next_sentence_head_does() -> None:
    shapes = shapes_of(sizes.MOBILEBERT)
    encoder_total = sizes.encoder_parameters(sizes.MOBILEBERT)
    assert encoder_total + count(shapes["next_sentence"]) == 24_582_914


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("ib_bert_large", 12_076_544),
        ("mobilebert", 842_240),
        ("mobilebert_paper_form", 874_624),
        ("mobilebert_tiny", 463_232),
    ],
)
def test_parameters_of_one_block(name: str, block: int) -> None:
    assert sizes.block_parameters(sizes.PUBLISHED[name]) == block


@pytest.mark.parametrize(
    ("name", "in_block", "in_encoder", "in_all"),
    [
        ("ib_bert_large", 24, 583, 593),  # with its pooler
        ("mobilebert", 46, 1111, 1119),
        ("mobilebert_paper_form", 42, 1015, 1023),
        ("mobilebert_tiny", 30, 727, 735),
    ],
)
def test_tensor_counts(name: str, in_block: int, in_encoder: int, in_all: int) -> None:
    config = sizes.PUBLISHED[name]
    shapes = shapes_of(config)
    tensors = {part: len(jax.tree.leaves(tree)) for part, tree in shapes.items()}
    assert tensors["blocks"] == in_block
    assert all(
        leaf.shape[0] == config.num_hidden_layers for leaf in jax.tree.leaves(shapes["blocks"])
    )
    tensors["blocks"] *= config.num_hidden_layers
    assert tensors["embeddings"] + tensors["blocks"] == in_encoder
    assert sum(tensors.values()) == in_all


FLOPS = [
    ("bert_base", 128, 22.35e9),
    ("mobilebert", 128, 5.39e9),
    ("mobilebert_paper_form", 128, 5.59e9),
    ("mobilebert_tiny", 128, 3.07e9),
    ("ib_bert_large", 128, 75.7e9),
    ("bert_large", 128, 78.9e9),
    ("squeezebert", 128, 7.42e9),
    ("ib_bert_large", 512, 322e9),
    ("mobilebert", 512, 24.0e9),
    ("mobilebert_tiny", 512, 14.7e9),
]


@pytest.mark.parametrize(("name", "length", "published"), FLOPS)
def test_forward_flops_from_settings_and_from_the_program(
    name: str, length: int, published: float
) -> None:
    config = sizes.PUBLISHED[name]
    batch = {
        key: jax.ShapeDtypeStruct((1, length), jnp.int32)
        for key in ("input_ids", "segment_ids", "input_mask")
    }
    program = jax.make_jaxpr(lambda p, b: encoder.encode(Network(config), p, b).hidden_BTD)(
        shapes_of(config), batch
    )
    counted = sizes.forward_flops(config, length)
    assert counted == pytest.approx(published, rel=0.01)
    assert programs.matrix_flops(program) == counted


def test_groups_of_any_layer_are_counted() -> None:
    changes = {"num_feedforward_networks": 2, "intermediate_groups": 8, "v_groups": 2}
    config = dataclasses.replace(sizes.MOBILEBERT, **changes)
    plain = dataclasses.replace(sizes.MOBILEBERT, num_feedforward_networks=2)
    assert count(shapes_of(config)["blocks"]) == 24 * sizes.block_parameters(config)
    spared = 2 * 128 * 512 * 7 // 8 + 512 * 128 // 2
    assert sizes.block_parameters(plain) - sizes.block_parameters(config) == spared
    flops = sizes.forward_flops(plain, 128) - sizes.forward_flops(config, 128)
    assert flops == 2 * 128 * 24 * spared
    assert sizes.has_groups(config) and not sizes.has_groups(plain)


def test_flops_of_the_lower_blocks_only() -> None:
    config = sizes.MOBILEBERT
    none, one, two = (sizes.forward_flops(config, 128, layers=k) for k in (0, 1, 2))
    assert two - one == one - none
    assert none + 24 * (one - none) == sizes.forward_flops(config, 128)


def test_published_sizes_contradict_nothing() -> None:
    for config in sizes.PUBLISHED.values():
        assert sizes.problems(config) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_hidden_layers": 0}, "layers=0 must be from 1 to 1,000; the nearest is 1"),
        (
            {"num_attention_heads": 6},
            "heads=6 does not divide intra_bottleneck_size=128; nearest that does: 4",
        ),
        ({"num_attention_heads": 100}, "nearest that does: 128"),
        (
            {"use_bottleneck": False, "query_key": "block_input"},
            "needs intra_bottleneck_size equal to hidden_size",
        ),
        ({"use_bottleneck": False, "intra_bottleneck_size": 512}, "can only read 'block_input'"),
        (
            {"trigram_input": False},
            "trigram_input=False needs embedding_size equal to hidden_size=512, not 128",
        ),
        ({"embedding_size": 600}, "embedding_size=600 is wider than hidden_size=512"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0 must be from 0 to 0.99"),
        (
            {"attention_probs_dropout_prob": -0.1},
            "attention_probs_dropout_prob=-0.1 must be from 0 to 0.99",
        ),
        ({"initializer_range": float("nan")}, "initializer_range=nan must be from 1e-06 to 10"),
        ({"q_groups": 0}, "q_groups=0 must be from 1 to 1,000; the nearest is 1"),
        (
            {"q_groups": 5},
            "q_groups=5 does not divide the 128 inputs and 128 outputs of its layer; "
            "nearest that does: 4",
        ),
        ({"v_groups": 256}, "the 512 inputs and 128 outputs of its layer; nearest that does: 128"),
        ({"intermediate_groups": 3}, "the 128 inputs and 512 outputs of its layer; nearest"),
        ({"output_groups": 3}, "the 512 inputs and 128 outputs of its layer; nearest"),
        (
            {"num_hidden_layers": 1000, "hidden_size": 10**5, "intra_bottleneck_size": 100},
            "x intra_bottleneck_size=100 are too many",
        ),
    ],
)
def test_each_contradiction_is_named(changes: dict[str, Any], sentence: str) -> None:
    found = sizes.problems(dataclasses.replace(sizes.MOBILEBERT, **changes))
    assert len(found) == 1
    assert sentence in found[0]


def test_several_contradictions_are_all_named() -> None:
    config = dataclasses.replace(sizes.MOBILEBERT, num_attention_heads=3, trigram_input=False)
    assert len(sizes.problems(config)) == 2
    out_of_bounds = dataclasses.replace(config, num_hidden_layers=0, hidden_dropout_prob=2.0)
    assert len(sizes.problems(out_of_bounds)) == 2
