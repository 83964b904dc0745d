"""The pieces every block is made of: dense layers, the two norms, the activations.

Every parameter carries logical axis names, which `sharding/rules.py` maps to the device mesh:
  vocab, embed (of the word table, and of the columns that only the output has), hidden (between
  blocks), bottleneck (inside a block), heads (projected queries, keys, values), intermediate
  (inside a feed-forward network), groups (of a kernel in groups, before the two of its group),
  transform, pooled (of the heads), position, type, classes.
"""

import dataclasses
import typing
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobilebert_jax.model.bfloat16_matmul import rounded_matmul
from mobilebert_jax.model.grouped_matmul import grouped_matmul
from mobilebert_jax.model.quantization import Quantized, RoundedActivation, rounded_weights
from mobilebert_jax.model.sizes import ModelConfig
from mobilebert_jax.sharding.rules import keep_rows

LAYER_NORM_EPSILON = 1e-12

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "relu": nn.relu,
    "relu6": nn.relu6,
}


_GELU = {"gelu": "none", "gelu_tanh": "tanh"}
"""Which approximation each of the two is, as converters call it."""


@dataclasses.dataclass(frozen=True)
class TaskHead:
    """The one output layer that a fine-tuned network has in place of the pretraining heads."""

    reads: typing.Literal["first", "every"]
    """The pooled first position, or every position."""
    outputs: int
    dropout: float = 0.0
    """Of the features that the layer reads."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A model's settings together with how to compute it."""

    config: ModelConfig
    dtype: str = "float32"
    """Type of matrix multiplications inside blocks; norms, softmax and heads are always float32."""
    remat: str = "none"
    unroll: int = 1
    """Blocks in one round of the loop over blocks."""
    wide: bool = False
    """Compute attention one head after the other and, where no gradient is taken, finish the first
    matmul of a feed-forward network before its activation: faster on a TPU for networks of which
    `attention.separable` is true."""
    bfloat16_matmuls: bool = False
    """Round to bfloat16 the operands of matmuls in blocks and with the vocabulary, forward and
    backward (`model.bfloat16_matmul`): for CPUs that multiply it faster."""
    attention_implementation: str = "xla"
    """How attention is computed where its scores are not asked for: written out (`xla`), or as one
    fused operation of an NVIDIA GPU (`cudnn`, `model.fused_attention`), which drops nothing out."""
    task: TaskHead | None = None
    """None for the two pretraining heads."""
    quantized: Quantized = "no"
    """Whether blocks compute as 8 bits would (`model.quantization`), in training for phones."""
    quantized_mask: bool = False
    """Hide padding as 8-bit numbers can (`attention.hide_padding`), for full-integer inference; a
    network that is `quantized` does so in any case."""
    uniform_attention: bool = False
    """Replace every attention distribution by the uniform one over real tokens, to measure what
    attention is worth to a network."""
    named_operations: bool = False
    """Name look-ups in tables and GELU for the converter to phones, which otherwise sees but their
    parts, and multiply every group of a dense layer by itself; such a program cannot be trained."""


def parameter(
    module: nn.Module,
    name: str,
    init: nn.initializers.Initializer,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
) -> jax.Array:
    """Declares a float32 parameter of `module` whose axes bear the logical names `axes`."""
    return typing.cast(
        jax.Array, module.param(name, nn.with_logical_partitioning(init, axes), shape)
    )


def activate(config: ModelConfig, x: jax.Array, *, named: bool = False) -> jax.Array:
    """Returns the network's activation of `x`; `named` is `Network.named_operations`."""
    name = config.hidden_act
    if named and name in _GELU:
        # By what PyTorch calls it, which is what converters know.
        whole = jax.lax.composite(lambda x, approximate: ACTIVATIONS[name](x), "aten.gelu.default")
        return typing.cast(jax.Array, whole(x, approximate=_GELU[name]))
    return ACTIVATIONS[name](x)


def weight_init(config: ModelConfig) -> nn.initializers.Initializer:
    """Returns BERT's initialiser of weights, a normal cut at two standard deviations."""
    return nn.initializers.truncated_normal(config.initializer_range)


class Dense(nn.Module):
    """Affine map of the last axis, [..., in] -> [..., out], in `dtype`, which is float32 where what
    it multiplies is `rounded` to bfloat16 (`Network.bfloat16_matmuls`).

    The kernel is [in, out], or [groups, in / groups, out / groups] with more groups than one.
    """

    config: ModelConfig
    features: int
    axes: tuple[str, str]
    dtype: str = "float32"
    rounded: bool = False
    quantized: Quantized = "no"
    groups: int = 1
    apart: bool = False
    """Multiply every group by itself (`grouped_matmul`)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape: tuple[int, ...] = (x.shape[-1], self.features)
        axes: tuple[str, ...] = self.axes
        if self.groups > 1:
            shape = (self.groups, *(size // self.groups for size in shape))
            axes = ("groups", *axes)
        kernel = parameter(self, "kernel", weight_init(self.config), shape, axes)
        bias = parameter(self, "bias", nn.initializers.zeros, (self.features,), axes[-1:])
        x = RoundedActivation(self.quantized, name="input_range")(x)
        kernel = rounded_weights(kernel, self.quantized)
        multiply = rounded_matmul if self.rounded else matmul
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.groups > 1:
            y = grouped_matmul(multiply, x, kernel, apart=self.apart)
        else:
            y = multiply(x, kernel)
        return keep_rows(y) + bias.astype(self.dtype)


def block_dense(
    network: Network, features: int, axes: tuple[str, str], name: str, groups: int = 1
) -> Dense:
    """Returns a dense layer of one of `network`'s blocks, a part of the module now being set up."""
    return Dense(
        network.config,
        features,
        axes,
        network.dtype,
        network.bfloat16_matmuls,
        network.quantized,
        groups,
        apart=network.named_operations,
        name=name,
    )


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns `x @ kernel`, [..., in] and [in, out] to [..., out].

    The gradient of the kernel is written out as one matmul of two matrices, which comes out as
    [in, out]. Automatic differentiation makes it [out, in] from all axes of `x` and turns it round,
    for which a CPU needs a sixth of a whole training step more.
    """
    return x @ kernel


def _matmul_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _matmul_backward(
    kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    # The kernel as it is: of its transpose, shards would be gathered once more.
    into_x = jnp.einsum("...o,io->...i", gradient, kernel)
    return into_x, _into_kernel(x, gradient)


matmul.defvjp(_matmul_forward, _matmul_backward)


def _into_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Returns the kernel's gradient [in, out] from `x` [..., in] and `gradient` [..., out]."""
    rows, columns = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    return typing.cast(
        jax.Array,
        jax.lax.platform_dependent(
            rows, columns, cpu=_turned_first, default=lambda rows, columns: rows.T @ columns
        ),
    )


def _turned_first(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Returns `rows.T @ columns`, the narrower of the two having been transposed in memory.

    The matmul library that a CPU's compiler calls takes a matrix only as it lies: what
    is left to turn round goes to a slower one, at half the speed. Without barriers the compiler
    would make one matmul of the two operations again.
    """
    barrier = jax.lax.optimization_barrier
    if rows.shape[1] <= columns.shape[1]:
        return barrier(rows.T) @ columns
    return barrier(barrier(columns.T) @ rows).T


class Norm(nn.Module):
    """LayerNorm (statistics over the last axis) or NoNorm (scale and shift only), in float32.

    Source: paper section 3.3, "operational optimizations", and equation 2.
    """

    kind: str
    axis: str
    dtype: str = "float32"
    quantized: Quantized = "no"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, axes = (x.shape[-1],), (self.axis,)
        scale = parameter(self, "scale", nn.initializers.ones, width, axes)
        shift = parameter(self, "shift", nn.initializers.zeros, width, axes)
        x = RoundedActivation(self.quantized, name="input_range")(x)
        x = normalize(x) if self.kind == "layer_norm" else x.astype(jnp.float32)
        product = RoundedActivation(self.quantized, name="product_range")(
            x * rounded_weights(scale, self.quantized)
        )
        return (product + rounded_weights(shift, self.quantized)).astype(self.dtype)


@jax.custom_vjp
def normalize(x: jax.Array) -> jax.Array:
    """Returns `x` with mean 0 and population variance 1 along its last axis, in float32.

    Of bfloat16 mean and mean square are taken in one pass, which a TPU makes part of the matrix
    matmul before it; what that loses is far below what bfloat16 has lost. Of float32 the mean is
    taken away first.

    The gradient is written out, because what automatic differentiation makes of the two nested
    means takes a CPU nearly twice the time of a whole training step, and twice the compilation.
    """
    return _normalize_forward(x)[0]


def _normalize_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    if x.dtype == jnp.bfloat16:
        square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        variance = jnp.maximum(square - jnp.square(mean), 0.0)
    else:
        variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    return (wide - mean) * inverse, (x, mean, inverse)


def _normalize_backward(
    kept: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    """d/dx = (g - mean(g) - y mean(g y)) / deviation, in the type of x."""
    x, mean, inverse = kept
    normalized = (x.astype(jnp.float32) - mean) * inverse
    shared = jnp.mean(gradient, axis=-1, keepdims=True)
    along = jnp.mean(gradient * normalized, axis=-1, keepdims=True)
    return ((inverse * (gradient - shared - normalized * along)).astype(x.dtype),)


normalize.defvjp(_normalize_forward, _normalize_backward)
