"""Attention as one fused operation, which writes no matrix of scores to memory.

cuDNN's kernel, as `jax.nn.dot_product_attention` offers it: bfloat16 on an NVIDIA GPU, without
dropout and without giving the scores away. What else it asks of a network: `config.fused_attention`
and `sharding.gpu_features`.

Shapes: B batch, T query positions, S key positions, H heads, C size of a head.
Source: Dao et al., FlashAttention (2022); cuDNN's frontend, scaled dot product attention.
"""

from typing import Literal

import jax
import jax.numpy as jnp


def fused_attention(
    query_BTHC: jax.Array,
    key_BSHC: jax.Array,
    value_BSHC: jax.Array,
    mask_BS: jax.Array,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> jax.Array:
    """Returns contexts [B, T, H, C]; every query sees the real keys of its row.

    Padding must follow what is real, as the rows of all feeds have it: the kernel is told how many
    keys are real, since it would read a mask, and write its gradient, as a matrix [T, S] of each
    row. A row of padding alone gets the mean of all its values, as scores that are all hidden give
    it: with no real key cuDNN before 9.25 makes NaN, so queries are 0 there and all keys are seen.

    Args:
      implementation: as JAX names it; `xla` has the same meaning on any machine, for comparison.
    """
    keys = key_BSHC.shape[1]
    real_B = jnp.sum(mask_BS > 0, axis=-1, dtype=jnp.int32)
    empty_B = real_B == 0
    query_BTHC = jnp.where(empty_B[:, None, None, None], 0, query_BTHC)
    return jax.nn.dot_product_attention(
        query_BTHC,
        key_BSHC,
        value_BSHC,
        key_value_seq_lengths=jnp.where(empty_B, keys, real_B),
        implementation=implementation,
    )
