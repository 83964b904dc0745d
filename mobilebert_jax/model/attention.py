"""Multi-head self-attention whose queries, keys and values may read different inputs.

Shapes: B batch, T query positions, S key positions, H heads, C size of a head, K bottleneck width.
Source: paper section 3.1 (Figure 1); scores before softmax are what attention transfer compares.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobilebert_jax.model.dropout import Dropout
from mobilebert_jax.model.layers import Dense, Network
from mobilebert_jax.model.quantization import RoundedActivation

MASKED_SCORE = -1e9
"""Added to the scores of padding: far enough below real scores to leave probability exactly 0."""

QUANTIZED_SCORES = (-6.0, 60.0)
"""Range of the scores where 8 bits must hold them; padding gets the lower end."""


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
            size, quantized = config.bottleneck, self.network.quantized
            y = Dense(config, size, (axis, "heads"), dtype, quantized, name=name)(x)
            return y.reshape(*y.shape[:-1], config.heads, config.bottleneck // config.heads)

        query_BTHC = project(query_input, axes[0], "query")
        key_BSHC = project(query_input, axes[0], "key")
        value_BSHC = project(value_input, axes[1], "value")
        scores_BHTS = jnp.einsum(
            "bthc,bshc->bhts", query_BTHC, key_BSHC, preferred_element_type=jnp.float32
        )
        scores_BHTS = scores_BHTS * (config.bottleneck // config.heads) ** -0.5
        scores_BHTS = self._rounded("scores_range", scores_BHTS)
        scores_BHTS = hide_padding(self.network, scores_BHTS, mask_BS, self._rounded)
        weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1)
        weights_BHTS = Dropout(config.attention_dropout)(weights_BHTS, deterministic=deterministic)
        context_BTHC = jnp.einsum("bhts,bshc->bthc", weights_BHTS.astype(dtype), value_BSHC)
        context_BTHC = self._rounded("context_range", context_BTHC)
        return context_BTHC.reshape(*context_BTHC.shape[:2], config.bottleneck), scores_BHTS

    def _rounded(self, name: str, x: jax.Array) -> jax.Array:
        return RoundedActivation(self.network.quantized, name=name)(x)


def hide_padding(
    network: Network,
    scores_BHTS: jax.Array,
    mask_BS: jax.Array,
    rounded: Callable[[str, jax.Array], jax.Array],
) -> jax.Array:
    """Returns the scores with those of padding lowered, `rounded` in between where 8 bits will be.

    Where the network is `quantized` or has a `quantized_mask`, real scores are clipped to [-6, 60]
    and padding is at -6, since 8 bits over a range down to a masking value would leave real scores
    one value. What it costs: padding keeps a share of the attention, with n real tokens whose
    scores are 0 and m of padding m e^-6 / (n + m e^-6), and more where real scores are negative;
    scores below -6 are lost.

    Source: the authors' code for quantisation-aware training.
    """
    mask_B11S = mask_BS[:, None, None, :]
    if network.quantized_mask or network.quantized != "no":
        lowest, highest = QUANTIZED_SCORES
        kept_BHTS = rounded("kept_range", jnp.clip(scores_BHTS, lowest, highest) * mask_B11S)
        return rounded("hidden_range", kept_BHTS + lowest * (1.0 - mask_B11S))
    return scores_BHTS + MASKED_SCORE * (1.0 - mask_B11S)
