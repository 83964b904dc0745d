"""Multi-head self-attention whose queries, keys and values may read different inputs.

Shapes: B batch, T query positions, S key positions, H heads, C size of a head, K bottleneck width.
Source: paper section 3.1 (Figure 1); scores before softmax are what attention transfer compares.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobilebert_jax.model.layers import Dense, Network

MASKED_SCORE = -1e9
"""Added to the scores of padding: far enough below real scores to leave probability exactly 0."""


class Attention(nn.Module):
    """Context vectors [B, T, K] and masked, scaled scores [B, H, T, S] in float32."""

    network: Network

    @nn.compact
    def __call__(
        self,
        query_input: jax.Array,
        value_input: jax.Array,
        mask_BS: jax.Array,
        *,
        axes: tuple[str, str],
        deterministic: bool = True,
    ) -> tuple[jax.Array, jax.Array]:
        """Queries and keys read `query_input`, values `value_input`; `axes` name their widths."""
        config, dtype = self.network.config, self.network.dtype

        def project(x: jax.Array, axis: str, name: str) -> jax.Array:
            y = Dense(config, config.bottleneck, (axis, "heads"), dtype, name=name)(x)
            return y.reshape(*y.shape[:-1], config.heads, config.bottleneck // config.heads)

        query_BTHC = project(query_input, axes[0], "query")
        key_BSHC = project(query_input, axes[0], "key")
        value_BSHC = project(value_input, axes[1], "value")
        scores_BHTS = jnp.einsum(
            "bthc,bshc->bhts", query_BTHC, key_BSHC, preferred_element_type=jnp.float32
        )
        scores_BHTS = scores_BHTS * (config.bottleneck // config.heads) ** -0.5
        scores_BHTS = scores_BHTS + MASKED_SCORE * (1.0 - mask_BS[:, None, None, :])
        weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1)
        weights_BHTS = nn.Dropout(config.attention_dropout)(
            weights_BHTS, deterministic=deterministic
        )
        context_BTHC = jnp.einsum("bhts,bshc->bthc", weights_BHTS.astype(dtype), value_BSHC)
        return context_BTHC.reshape(*context_BTHC.shape[:2], config.bottleneck), scores_BHTS
