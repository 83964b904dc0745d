"""Looking inside networks for the report: attention maps, feature sizes, words for a blank.

Shapes: N layers, B batch, T positions, H heads, D hidden width, V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.loss_terms import Batch, Params
from mobilebert_jax.training.state import whole


def one_sentence(tokenizer: Tokenizer, sentence: str, length: int) -> dict[str, Any]:
    """Returns the batch of one row `[CLS] sentence [SEP]`, unpadded, its blanks as predictions.

    Raises InputError when the sentence has no blank or is too long.
    """
    ids = [tokenizer.cls, *tokenizer.encode_with_mask(sentence), tokenizer.sep]
    blanks = [i for i, token in enumerate(ids) if token == tokenizer.mask]
    if len(ids) > length:
        raise InputError(
            f"evaluate.fill_mask_text={sentence!r} has {len(ids)} tokens with [CLS] and [SEP]; "
            f"data.max_seq_length={length} are allowed"
        )
    ids_BT = np.asarray([ids], np.int32)
    return {
        "input_ids": ids_BT,
        "input_mask": np.ones_like(ids_BT),
        "segment_ids": np.zeros_like(ids_BT),
        "masked_lm_positions": np.asarray([blanks], np.int32),
    }


def attention_maps(network: Network, params: Params, batch: Batch) -> np.ndarray:
    """Returns the attention distributions of the batch's first row, [N, H, T, T]."""

    @jax.jit
    def scores(params: Params, batch: Batch) -> jax.Array:
        every = tuple(range(network.config.num_hidden_layers))
        captured = encoder.encode(network, params, batch, capture=every).shown
        return jax.nn.softmax(captured.scores_BHTS[:, 0])

    return whole(scores(params, batch))


def feature_rms(network: Network, params: Params, batch: Batch) -> list[float]:
    """Returns the root mean square of the embeddings and of each layer's output, padding apart."""

    @jax.jit
    def rms(params: Params, batch: Batch) -> jax.Array:
        every = tuple(range(network.config.num_hidden_layers))
        encoded = encoder.encode(network, params, batch, capture=every)
        features_NBTD = jnp.concatenate(
            [encoded.embedded_BTD[None], encoded.shown.features_BTD]
        ).astype(jnp.float32)
        mask_BT = batch["input_mask"].astype(jnp.float32)
        square_NBT = jnp.mean(jnp.square(features_NBTD), axis=-1) * mask_BT
        return jnp.sqrt(jnp.sum(square_NBT, axis=(1, 2)) / jnp.sum(mask_BT))

    return [float(x) for x in whole(rms(params, batch))]


def fill_mask(
    network: Network, params: Params, batch: Batch, tokenizer: Tokenizer, count: int = 5
) -> list[dict[str, Any]]:
    """Returns the `count` likeliest pieces for the first blank, with their probabilities."""

    @jax.jit
    def probabilities(params: Params, batch: Batch) -> jax.Array:
        hidden_BTD = encoder.encode(network, params, batch).hidden_BTD
        return jax.nn.softmax(
            encoder.predict(network, params, hidden_BTD, batch).masked_lm_BPV[0, 0]
        )

    probabilities_V = whole(probabilities(params, batch))[: tokenizer.size]
    best = np.argsort(-probabilities_V)[:count]
    return [
        {"piece": piece, "probability": float(probabilities_V[index])}
        for piece, index in zip(tokenizer.pieces(best.tolist()), best, strict=True)
    ]
