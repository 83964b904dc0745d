"""Numbers as 8 bits hold them, for training that is aware of it.

Activations are rounded to 256 values of a range that includes 0, weights to 255 values symmetric
about 0. Ranges are parameters whose "gradient" is their distance from what a batch shows, so that
an update of `1 - RANGE_DECAY` times it is a moving average, and the training state needs nothing
beside parameters. Rounding lets gradients through unchanged, inside the range.

Source: paper section 4.4 (quantisation); Jacob et al., 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", section 3; the authors' code.
"""

import typing
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

Quantized = Literal["no", "observed", "rounded"]
"""Of a network: "observed" computes in full precision, while the gradient of each range says what
a batch shows of it, for calibration; "rounded" computes as 8 bits would."""

RANGE_DECAY = 0.999
"""Of the moving averages."""
INITIAL_RANGE = 6.0
RANGE_NAMES = ("lowest", "highest")
"""Of the two parameters of a range."""

_STEPS = 255
_WEIGHT_STEPS = 127
_LEAST_WIDTH = 1e-4  # of a range: a tensor of zeros has none, and nothing may be divided by 0


class RoundedActivation(nn.Module):
    """Any array -> the same shape, as 8 bits hold it; a range of its own, initially +-6."""

    quantized: Quantized

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.quantized == "no":
            return x

        def bound(name: str, value: float) -> jax.Array:
            init = nn.with_logical_partitioning(nn.initializers.constant(value), ())
            return typing.cast(jax.Array, self.param(name, init, ()))

        lowest, highest = bound("lowest", -INITIAL_RANGE), bound("highest", INITIAL_RANGE)
        function = rounded if self.quantized == "rounded" else observed
        return function(x.astype(jnp.float32), lowest, highest).astype(x.dtype)


@jax.custom_vjp
def rounded(x: jax.Array, lowest: jax.Array, highest: jax.Array) -> jax.Array:
    """Returns `x` clipped to the range and rounded to its 256 values, one of which is exactly 0."""
    scale, first, last = _grid(lowest, highest)
    return jnp.clip(jnp.round(x / scale), first, last) * scale


def _grid(lowest: jax.Array, highest: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the distance of neighbouring values, and the least and greatest multiple of it."""
    lowest, highest = jnp.minimum(lowest, 0.0), jnp.maximum(highest, 0.0)
    scale = jnp.maximum(highest - lowest, _LEAST_WIDTH) / _STEPS
    first = jnp.round(lowest / scale)
    return scale, first, first + _STEPS


def _rounded_forward(
    x: jax.Array, lowest: jax.Array, highest: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return rounded(x, lowest, highest), (x, lowest, highest)


def _rounded_backward(
    kept: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, lowest, highest = kept
    scale, first, last = _grid(lowest, highest)
    inside = (x >= first * scale) & (x <= last * scale)
    return jnp.where(inside, gradient, 0.0), *_distances(x, lowest, highest)


def _distances(x: jax.Array, lowest: jax.Array, highest: jax.Array) -> tuple[jax.Array, jax.Array]:
    return lowest - jnp.minimum(x.min(), 0.0), highest - jnp.maximum(x.max(), 0.0)


rounded.defvjp(_rounded_forward, _rounded_backward)


@jax.custom_vjp
def observed(x: jax.Array, lowest: jax.Array, highest: jax.Array) -> jax.Array:
    """Returns `x`; only the gradients of the range tell of it."""
    return x


observed.defvjp(
    lambda x, lowest, highest: (x, (x, lowest, highest)),
    lambda kept, gradient: (gradient, *_distances(*kept)),
)


def rounded_weights(w: jax.Array, quantized: Quantized) -> jax.Array:
    """Returns weights rounded to 255 values that are symmetric about 0; gradients pass unchanged.

    A kernel [in, out] has a scale for each output, as the integer kernels of phones do (the
    authors' code had one for all), and so has each group of a kernel [groups, in, out]; a vector
    has one.
    """
    if quantized != "rounded":
        return w
    inputs = max(w.ndim - 2, 0)
    widest = jnp.max(jnp.abs(w), axis=inputs, keepdims=True)
    scale = jnp.maximum(widest, _LEAST_WIDTH) / _WEIGHT_STEPS
    return w + jax.lax.stop_gradient(jnp.round(w / scale) * scale - w)
