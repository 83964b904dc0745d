"""Multi-head self-attention whose queries, keys and values may read different inputs.

Shapes: B batch, T query positions, S key positions, H heads, C size of a head, K bottleneck width.
Source: paper section 3.1 (Figure 1); scores before softmax are what attention transfer compares.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobilebert_jax.model.bfloat16_matmul import bits, multiply, rounded_einsum, widened
from mobilebert_jax.model.dropout import drop, keep_mask
from mobilebert_jax.model.fused_attention import fused_attention
from mobilebert_jax.model.layers import Network, block_dense
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
    """Context vectors [B, T, K], and scores [B, H, T, S] in float32, masked and scaled, or None."""

    network: Network
    scores_wanted: bool = True

    @nn.compact
    def __call__(
        self,
        query_input: jax.Array,
        value_input: jax.Array,
        mask_BS: jax.Array,
        *,
        axes: tuple[str, str],
        deterministic: bool = True,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Queries and keys read `query_input`, values `value_input`; `axes` name their widths."""
        config = self.network.config

        def project(x: jax.Array, axis: str, name: str, groups: int) -> jax.Array:
            width = config.intra_bottleneck_size
            return block_dense(self.network, width, (axis, "heads"), name, groups)(x)

        projected = (
            project(query_input, axes[0], "query", config.q_groups),
            project(query_input, axes[0], "key", config.k_groups),
            project(value_input, axes[1], "value", config.v_groups),
        )
        dropout = 0.0 if deterministic else config.attention_probs_dropout_prob
        split = functools.partial(_heads, config)
        if self._is_fused():
            if dropout:
                raise ValueError("fused attention has no dropout of attention probabilities")
            query_BTHC, key_BSHC, value_BSHC = map(split, projected)
            context_BTHC = fused_attention(query_BTHC, key_BSHC, value_BSHC, mask_BS)
            return context_BTHC.reshape(projected[0].shape), None
        kept_BHTS = None
        if dropout:
            batch, length = mask_BS.shape
            shape = (batch, config.num_attention_heads, length, length)
            kept_BHTS = keep_mask(self.make_rng("dropout"), shape, dropout)
        rounding: dict[str, RoundedActivation] = {}

        def rounded(name: str, x: jax.Array) -> jax.Array:
            if name not in rounding:
                rounding[name] = RoundedActivation(self.network.quantized, name=name)
            return rounding[name](x)

        if not self.network.wide:
            context_BTHC, scores_BHTS = _attend(
                self.network, list(map(split, projected)), mask_BS, kept_BHTS, rounded
            )
            return context_BTHC.reshape(projected[0].shape), self._shown(scores_BHTS)
        contexts, scores = [], []
        for head in range(config.num_attention_heads):
            size = config.intra_bottleneck_size // config.num_attention_heads
            one = [x[..., head * size : (head + 1) * size] for x in projected]
            kept_BTS = None if kept_BHTS is None else kept_BHTS[:, head]
            context_BTC, scores_BTS = _attend(self.network, one, mask_BS, kept_BTS, rounded)
            contexts.append(context_BTC)
            scores.append(scores_BTS)
        return jnp.concatenate(contexts, axis=-1), self._shown(jnp.stack(scores, axis=1))

    def _is_fused(self) -> bool:
        """Whether scores are needed by none, in a network that may be computed without them."""
        needed = self.scores_wanted or self.network.uniform_attention
        return self.network.attention_implementation == "cudnn" and not needed

    def _shown(self, scores_BHTS: jax.Array) -> jax.Array | None:
        return scores_BHTS if self.scores_wanted else None


def _heads(config: ModelConfig, x: jax.Array) -> jax.Array:
    """Returns projected queries, keys or values [B, T, K] as [B, T, H, C]."""
    heads = config.num_attention_heads
    return x.reshape(*x.shape[:2], heads, config.intra_bottleneck_size // heads)


def _attend(
    network: Network,
    projected: list[jax.Array],
    mask_BS: jax.Array,
    kept: jax.Array | None,
    rounded: Rounding,
) -> tuple[jax.Array, jax.Array]:
    """Returns contexts [B, T, H, C] and scores [B, H, T, S] of queries, keys and values.

    All are without H where `projected` are those of one head: even an axis of size 1 would cost a
    TPU a hundredth of the teacher's step.
    """
    query, key, value = projected
    if network.bfloat16_matmuls:
        scores = rounded_einsum("bt...c,bs...c->b...ts", query, key)
    else:
        scores = jnp.einsum("bt...c,bs...c->b...ts", query, key, preferred_element_type=jnp.float32)
    if network.uniform_attention:
        scores = jnp.zeros_like(scores)
    scores = rounded("scores_range", scores * query.shape[-1] ** -0.5)
    scores = hide_padding(network, scores, mask_BS, rounded)
    weigh = rounded_weighted_values if network.bfloat16_matmuls else weighted_values
    context = weigh(network.config.attention_probs_dropout_prob, scores, value, kept)
    return rounded("context_range", context), scores


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def weighted_values(
    dropout: float, scores: jax.Array, value: jax.Array, kept: jax.Array | None
) -> jax.Array:
    """Returns the context [B, T, H, C]: values [B, S, H, C] weighted by the softmax of scores
    [B, H, T, S], of which those not `kept` are dropped.

    The gradient of the softmax takes from every weight's own the sum of all, each times its weight.
    That sum is the product of the context and its gradient: C numbers a query instead of S, for
    which the matrix of weights would have to be gone through once more.

    Source: Dao et al., FlashAttention (2022), appendix B.2.
    """
    return _weighted_forward(dropout, scores, value, kept)[0]


_Residuals = tuple[jax.Array, jax.Array, jax.Array | None, jax.Array]


def _weighted_forward(
    dropout: float, scores: jax.Array, value: jax.Array, kept: jax.Array | None
) -> tuple[jax.Array, _Residuals]:
    weights = jax.nn.softmax(scores, axis=-1)
    used = drop(weights, kept, dropout).astype(value.dtype)
    context = jnp.einsum("b...ts,bs...c->bt...c", used, value)
    return context, (weights, value, kept, context)


def _weighted_backward(
    dropout: float, residuals: _Residuals, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    weights, value, kept, context = residuals
    used = drop(weights, kept, dropout).astype(value.dtype)
    into_value = jnp.einsum("b...ts,bt...c->bs...c", used, gradient)
    along = jnp.sum(gradient.astype(jnp.float32) * context.astype(jnp.float32), axis=-1)
    along = jnp.moveaxis(along, 1, -1)[..., None]
    into_weights = jnp.einsum(
        "bt...c,bs...c->b...ts", gradient, value, preferred_element_type=jnp.float32
    )
    into_weights = drop(into_weights, kept, dropout)
    return weights * (into_weights - along), into_value, None


weighted_values.defvjp(_weighted_forward, _weighted_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def rounded_weighted_values(
    dropout: float, scores: jax.Array, value: jax.Array, kept: jax.Array | None
) -> jax.Array:
    """Returns `weighted_values` of float32, of which what is multiplied is rounded to bfloat16."""
    return _rounded_forward(dropout, scores, value, kept)[0]


def _rounded_forward(
    dropout: float, scores: jax.Array, value: jax.Array, kept: jax.Array | None
) -> tuple[jax.Array, _Residuals]:
    weights, value = bits(jax.nn.softmax(scores, axis=-1)), bits(value)
    used, factor = _dropped(weights, kept, dropout)
    context = factor * multiply("b...ts,bs...c->bt...c", used, value)
    return context, (weights, value, kept, context)


def _rounded_backward(
    dropout: float, residuals: _Residuals, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    weights, value, kept, context = residuals
    used, factor = _dropped(weights, kept, dropout)
    gradient_bits = bits(gradient)
    into_value = factor * multiply("b...ts,bt...c->bs...c", used, gradient_bits)
    into_weights = multiply("bt...c,bs...c->b...ts", gradient_bits, value)
    into_weights = drop(into_weights, kept, dropout)
    # Gradients of a softmax's scores add up to 0, or queries and keys would learn noise: hence
    # of numbers that were multiplied only, by weights whose sum is no longer quite 1.
    share = widened(weights)
    along = jnp.moveaxis(jnp.sum(widened(gradient_bits) * context, axis=-1), 1, -1)[..., None]
    along = along / jnp.sum(share, axis=-1, keepdims=True)
    return share * (into_weights - along), into_value, None


def _dropped(weights: jax.Array, kept: jax.Array | None, dropout: float) -> tuple[jax.Array, float]:
    """Returns the bits of weights with 0 where they are not `kept`, and what to scale them by."""
    if kept is None:
        return weights, 1.0
    return jnp.where(kept, weights, jnp.zeros_like(weights)), 1.0 / (1.0 - dropout)


rounded_weighted_values.defvjp(_rounded_forward, _rounded_backward)


def separable(config: ModelConfig) -> bool:
    """Whether a head fills whole registers of a TPU, so that heads are cut apart for nothing.

    Then a loop over the heads spares the compiler turning queries, keys and values round in the
    backward pass, a twentieth of the teacher's step on v5e by its own estimate; the student's heads
    of 32 it would slow down. Heads that a mesh has divided must stay together.
    """
    return config.intra_bottleneck_size // config.num_attention_heads % LANES == 0


def hide_padding(
    network: Network,
    scores: jax.Array,
    mask_BS: jax.Array,
    rounded: Rounding,
) -> jax.Array:
    """Returns scores [B, ..., T, S] with those of padding lowered, `rounded` where 8 bits will be.

    Where the network is `quantized` or has a `quantized_mask`, real scores are clipped to [-6, 60]
    and padding is at -6, since 8 bits over a range down to a masking value would leave real scores
    one value. What it costs: padding keeps a share of the attention, with n real tokens whose
    scores are 0 and m of padding m e^-6 / (n + m e^-6), and more where real scores are negative;
    scores below -6 are lost.

    Source: the authors' code for quantisation-aware training.
    """
    mask = jnp.expand_dims(mask_BS, range(1, scores.ndim - 1))
    if network.quantized_mask or network.quantized != "no":
        lowest, highest = QUANTIZED_SCORES
        # Not jnp.clip, which converters would see without the name of the block.
        kept = rounded("kept_range", jnp.minimum(jnp.maximum(scores, lowest), highest) * mask)
        return rounded("hidden_range", kept + lowest * (1.0 - mask))
    return scores + MASKED_SCORE * (1.0 - mask)
