"""Multi-head self-attention whose queries, keys and values may read different inputs.

Shapes: B batch, T query positions, S key positions, H heads, C size of a head, K bottleneck width.
Source: paper section 3.1 (Figure 1); scores before softmax are what attention transfer compares.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobilebert_jax.model.dropout import drop, keep_mask
from mobilebert_jax.model.layers import Dense, Network
from mobilebert_jax.model.quantization import RoundedActivation
from mobilebert_jax.model.sizes import ModelConfig

MASKED_SCORE = -1e9
"""Added to the scores of padding: far enough below real scores to leave probability exactly 0."""

LANES = 128
"""Numbers of a row that a TPU's register holds."""

QUANTIZED_SCORES = (-6.0, 60.0)
"""Range of the scores where 8 bits must hold them; padding gets the lower end."""


Rounding = Callable[[str, jax.Array], jax.Array]
"""Rounds what bears a name as 8 bits would, where the network does so."""


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
            return Dense(config, size, (axis, "heads"), dtype, quantized, name=name)(x)

        projected = (
            project(query_input, axes[0], "query"),
            project(query_input, axes[0], "key"),
            project(value_input, axes[1], "value"),
        )
        kept_BHTS = None
        if config.attention_dropout and not deterministic:
            batch, length = mask_BS.shape
            shape = (batch, config.heads, length, length)
            kept_BHTS = keep_mask(self.make_rng("dropout"), shape, config.attention_dropout)
        rounding: dict[str, RoundedActivation] = {}

        def rounded(name: str, x: jax.Array) -> jax.Array:
            if name not in rounding:
                rounding[name] = RoundedActivation(self.network.quantized, name=name)
            return rounding[name](x)

        contexts, scores = [], []
        groups = config.heads if self.network.head_by_head else 1
        for group in range(groups):
            query_BTK, key_BSK, value_BSK = (_part(x, group, groups, -1) for x in projected)
            kept = None if kept_BHTS is None else _part(kept_BHTS, group, groups, 1)
            context, score = _attend(
                self.network, query_BTK, key_BSK, value_BSK, mask_BS, kept, rounded
            )
            contexts.append(context)
            scores.append(score)
        return jnp.concatenate(contexts, axis=-1), jnp.concatenate(scores, axis=1)


def _attend(
    network: Network,
    query_BTK: jax.Array,
    key_BSK: jax.Array,
    value_BSK: jax.Array,
    mask_BS: jax.Array,
    kept_BHTS: jax.Array | None,
    rounded: Rounding,
) -> tuple[jax.Array, jax.Array]:
    """Returns the contexts [B, T, K] and scores of those heads that the inputs hold."""
    config = network.config
    size = config.bottleneck // config.heads
    query_BTHC, key_BSHC, value_BSHC = (
        x.reshape(*x.shape[:-1], -1, size) for x in (query_BTK, key_BSK, value_BSK)
    )
    scores_BHTS = jnp.einsum(
        "bthc,bshc->bhts", query_BTHC, key_BSHC, preferred_element_type=jnp.float32
    )
    scores_BHTS = rounded("scores_range", scores_BHTS * size**-0.5)
    scores_BHTS = hide_padding(network, scores_BHTS, mask_BS, rounded)
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1)
    if kept_BHTS is not None:
        weights_BHTS = drop(weights_BHTS, kept_BHTS, config.attention_dropout)
    context_BTHC = jnp.einsum("bhts,bshc->bthc", weights_BHTS.astype(network.dtype), value_BSHC)
    context_BTHC = rounded("context_range", context_BTHC)
    return context_BTHC.reshape(query_BTK.shape), scores_BHTS


def separable(config: ModelConfig) -> bool:
    """Whether a head fills whole registers of a TPU, so that heads are cut apart for nothing.

    Then a loop over the heads spares the compiler turning queries, keys and values round in the
    backward pass, a twentieth of the teacher's step on v5e by its own estimate; the student's heads
    of 32 it would slow down. Heads that a mesh has divided must stay together.
    """
    return config.bottleneck // config.heads % LANES == 0


def _part(x: jax.Array, index: int, parts: int, axis: int) -> jax.Array:
    """Returns one of `parts` equal pieces of `x` along `axis`."""
    if parts == 1:
        return x
    size = x.shape[axis] // parts
    return jax.lax.slice_in_dim(x, index * size, (index + 1) * size, axis=axis)


def hide_padding(
    network: Network,
    scores_BHTS: jax.Array,
    mask_BS: jax.Array,
    rounded: Rounding,
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
