"""One vector for a text: the mean of its tokens' features, or those of the first position.

Shapes: B batch, T positions, D hidden.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mobilebert_jax.model import encoder
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.loss_terms import Params

POOLS = ("mean", "first", "cls")
_SMALLEST = 1e-12  # length that is divided by at least, as in PyTorch's `normalize`


class Pooling(NamedTuple):
    """How the features of a text become one vector."""

    pool: str = "mean"
    """One of `POOLS`: "mean" of all tokens that are not padding; "first", the first position
    through the pooler where the network has one; "cls", the first position as it is."""
    normalize: bool = False
    """Whether vectors have length 1."""


MEAN = Pooling()


def of(
    network: Network, params: Params, hidden_BTD: jax.Array, mask_BT: jax.Array, pooling: Pooling
) -> jax.Array:
    """Returns the vectors of texts whose last features are `hidden_BTD`, float32 [B, D]."""
    if pooling.pool == "first":
        vector_BD = encoder.pool(network, params, hidden_BTD)
    elif pooling.pool == "cls":
        vector_BD = hidden_BTD[:, 0].astype(jnp.float32)
    else:
        mask_BT1 = mask_BT[..., None].astype(jnp.float32)
        total_BD = jnp.sum(hidden_BTD.astype(jnp.float32) * mask_BT1, axis=1)
        vector_BD = total_BD / jnp.maximum(jnp.sum(mask_BT1, axis=1), 1.0)
    if not pooling.normalize:
        return vector_BD
    length_B1 = jnp.sqrt(jnp.sum(jnp.square(vector_BD), axis=-1, keepdims=True))
    return vector_BD / jnp.maximum(length_B1, _SMALLEST)
