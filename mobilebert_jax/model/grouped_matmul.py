"""Products in groups: each group of the outputs reads its own group of the inputs alone.

That is what a grouped convolution of width 1 computes, and a dense layer whose kernel is block
diagonal; the zeros beside the blocks are neither stored nor multiplied.

Source: SqueezeBERT (Iandola et al., 2020, arXiv 2006.11316), section 3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def grouped_matmul(
    multiply: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    *,
    apart: bool = False,
) -> jax.Array:
    """Returns the product of `x` [..., groups * in] and `kernel` [groups, in, out], as
    [..., groups * out].

    Args:
      multiply: multiplies one group, [..., in] and [in, out] to [..., out].
      x: inputs, one group after the other.
      kernel: a matrix for every group.
      apart: multiply one group after the other instead of all at once, and cut a kernel that is a
        constant before the program runs. Of this the converter to phones makes dense layers, which
        the quantiser gives a scale for each output; of one product it makes a batched one, which in
        8 bits has one scale for all or cannot be loaded.
    """
    groups = kernel.shape[0]
    if apart:
        with jax.ensure_compile_time_eval():
            matrices = list(kernel)
        inputs = jnp.split(x, groups, axis=-1)
        products = [multiply(*pair) for pair in zip(inputs, matrices, strict=True)]
        return jnp.concatenate(products, axis=-1)
    inputs_GI = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    products_GO = jax.vmap(multiply, in_axes=(-2, 0), out_axes=-2)(inputs_GI, kernel)
    return products_GO.reshape(*x.shape[:-1], groups * kernel.shape[-1])
