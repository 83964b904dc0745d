"""What is compared with another implementation: settings, random weights, one batch, our results.

Shapes: L layers, B batch, T positions, H heads, P predicted positions, D hidden, V vocabulary.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network
from mobilebert_jax.model.sizes import ModelConfig

TOLERANCE = 1e-5
"""Largest accepted difference as a share of the largest magnitude of the compared tensor."""

QUICK_COMPILATION = {"xla_backend_optimization_level": 0}
"""Halves the time of a test, nearly all of which is compilation."""

_NARROW: dict[str, Any] = {
    "vocab_size": 96,
    "max_position_embeddings": 16,
    "hidden_size": 24,
    "intra_bottleneck_size": 16,
    "embedding_size": 8,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    # The trigram of the last word reads the padding after it in every published implementation.
    "trigram_masks_padding": False,
}


def _narrow(config: ModelConfig, **changes: Any) -> ModelConfig:
    return dataclasses.replace(config, **(_NARROW | changes))


NARROW = {
    "released": _narrow(sizes.MOBILEBERT, num_feedforward_networks=3),
    "relu6": _narrow(sizes.MOBILEBERT_RELU6, num_feedforward_networks=3),
    "tiny": _narrow(sizes.MOBILEBERT_TINY),
    "layer_norm_gelu": _narrow(
        sizes.MOBILEBERT,
        normalization_type="layer_norm",
        hidden_act="gelu",
        num_feedforward_networks=2,
    ),
    "pooler": _narrow(sizes.MOBILEBERT, pooler=True, num_feedforward_networks=2),
    "paper_form": _narrow(sizes.MOBILEBERT_PAPER_FORM, num_feedforward_networks=2),
    "teacher": _narrow(sizes.IB_BERT_LARGE, intra_bottleneck_size=32),
    "bert": _narrow(
        sizes.BERT_BASE, intra_bottleneck_size=24, embedding_size=24, hidden_act="gelu"
    ),
    "squeezebert": _narrow(
        sizes.SQUEEZEBERT,
        intra_bottleneck_size=24,
        embedding_size=24,
        k_groups=2,
        v_groups=3,
        output_groups=2,
    ),
}
"""Few feed-forward networks a block keep compilation short; `WIDE` has the published number."""

WIDE = {
    "released_width": dataclasses.replace(
        sizes.MOBILEBERT, num_hidden_layers=3, vocab_size=1000, trigram_masks_padding=False
    )
}


class Results(NamedTuple):
    """Everything that two implementations must agree on."""

    hidden_states: np.ndarray  # [L + 1, B, T, D], the embedding output first
    attention: np.ndarray  # probabilities, [L, B, H, T, T]
    masked_lm: np.ndarray  # [B, P, V]
    next_sentence: np.ndarray  # [B, 2]
    loss: np.ndarray
    gradients: dict[str, Any]  # like our parameters


def random_params(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Returns weights under which every part of the network matters.

    Norm scales are away from 1, shifts and biases away from 0, and kernels large enough for the
    attention to be uneven, but not so large that it saturates, which would multiply rounding
    errors. All values are exact in float16, which halves the golden files.
    """
    shapes = nn.unbox(jax.eval_shape(lambda: encoder.init(Network(config), jax.random.key(0))))
    generator = np.random.default_rng(seed)

    def draw(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if (
            path[-2].key.startswith("feedforward")
            and path[-2].key.endswith("_in")
            and name == "bias"
        ):
            # Far enough from 0 for relu6 to meet its upper bound.
            values = generator.normal(0.0, 4.0, leaf.shape)
        elif name == "scale":
            values = generator.uniform(0.5, 1.5, leaf.shape)
        elif name in ("shift", "bias"):
            values = generator.normal(0.0, 0.2, leaf.shape)
        elif name == "kernel":
            values = generator.normal(0.0, 0.5 * leaf.shape[-2] ** -0.5, leaf.shape)
        else:
            values = generator.normal(0.0, 0.5, leaf.shape)
        return values.astype(np.float16).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_batch(config: ModelConfig, length: int = 10, seed: int = 1) -> dict[str, np.ndarray]:
    """Returns 3 sequences: full, and padded after 7/10 and 4/10 of their length."""
    generator = np.random.default_rng(seed)
    lengths = np.array([length, length * 7 // 10, length * 4 // 10])
    mask_BT = (np.arange(length) < lengths[:, None]).astype(np.int32)
    ids_BT = generator.integers(1, config.vocab_size, (3, length)).astype(np.int32) * mask_BT
    positions_BP = np.stack([np.sort(generator.permutation(n)[:3]) for n in lengths])
    return {
        "input_ids": ids_BT,
        "segment_ids": (np.arange(length) >= lengths[:, None] // 2).astype(np.int32) * mask_BT,
        "input_mask": mask_BT,
        "masked_lm_positions": positions_BP.astype(np.int32),
        "masked_lm_ids": generator.integers(1, config.vocab_size, (3, 3)).astype(np.int32),
        "next_sentence_labels": np.array([0, 1, 1], np.int32),
    }


def our_results(
    config: ModelConfig, params: dict[str, Any], batch: Mapping[str, np.ndarray]
) -> Results:
    """Returns what `encoder` computes; the loss is mean masked-LM + mean next-sentence loss."""
    network = Network(config)
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}

    def loss_of(params: dict[str, Any]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        encoded = encoder.encode(
            network, params, arrays, capture=tuple(range(config.num_hidden_layers))
        )
        predicted = encoder.predict(network, params, encoded.hidden_BTD, arrays)
        captured = encoded.captured
        assert captured is not None
        hidden = jnp.concatenate([encoded.embedded_BTD[None], captured.features_BTD])
        attention = jax.nn.softmax(captured.scores_BHTS)
        loss = _mean_cross_entropy(predicted.masked_lm_BPV, arrays["masked_lm_ids"])
        loss += _mean_cross_entropy(predicted.next_sentence_B2, arrays["next_sentence_labels"])
        return loss, (hidden, attention, *predicted)

    # On an accelerator the default precision of a float32 matmul would exceed the tolerance.
    with jax.default_matmul_precision("highest"):
        run = jax.jit(jax.value_and_grad(loss_of, has_aux=True), compiler_options=QUICK_COMPILATION)
        (loss, outputs), gradients = run(params)
    return Results(*jax.tree.map(np.asarray, (*outputs, loss, gradients)))


def _mean_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1))


def differences(ours: Results, theirs: Results) -> dict[str, float]:
    """Returns for every tensor the largest difference relative to the largest magnitude of theirs.

    Hidden states and attention are compared layer by layer, since their magnitudes differ.
    """
    found: dict[str, float] = {}
    for field in ("hidden_states", "attention"):
        mine, other = getattr(ours, field), getattr(theirs, field)
        assert mine.shape == other.shape
        for layer in range(len(other)):
            found[f"{field}[{layer}]"] = _difference(mine[layer], other[layer])
    for field in ("masked_lm", "next_sentence", "loss"):
        found[field] = _difference(getattr(ours, field), getattr(theirs, field))
    mine_leaves = jax.tree_util.tree_leaves_with_path(ours.gradients)
    other_leaves = jax.tree_util.tree_leaves_with_path(theirs.gradients)
    for (path, mine), (other_path, other) in zip(mine_leaves, other_leaves, strict=True):
        assert path == other_path
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        # Softmax does not see what a key's bias adds to all scores of a query: this gradient is 0
        # but for rounding, so it is measured against that of the query's bias.
        scale = theirs.gradients["blocks"]["attention"]["query"]["bias"]
        is_zero = name == "blocks/attention/key/bias"
        found[f"gradient {name}"] = _difference(mine, other, scale if is_zero else other)
    return found


def _difference(mine: np.ndarray, other: np.ndarray, scale: np.ndarray | None = None) -> float:
    assert mine.shape == other.shape
    assert np.isfinite(mine).all() and np.isfinite(other).all()
    magnitude = np.abs(other if scale is None else scale).max()
    return float(np.abs(mine - other).max() / magnitude)
