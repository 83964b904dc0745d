"""Matrix products of numbers rounded to bfloat16 and summed in float32, for CPUs that multiply it
faster than float32.

Rounded numbers are kept as the integers that their bits are: what a CPU's compiler stores as
bfloat16, be it a stack of a loop's residuals, it widens to float32 again, and multiplies as that.
"""

import functools

import jax
import jax.numpy as jnp

Kept = tuple[jax.Array, jax.Array]
"""The bits of one factor, and the other in float32."""


def bits(x: jax.Array) -> jax.Array:
    """Returns `x` rounded to bfloat16, as bits."""
    return jax.lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)


def widened(kept: jax.Array) -> jax.Array:
    """Returns the numbers of bits, as float32."""
    return jax.lax.bitcast_convert_type(kept, jnp.bfloat16).astype(jnp.float32)


def multiply(subscripts: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns `jnp.einsum` of bits, as float32."""
    left, right = (jax.lax.bitcast_convert_type(kept, jnp.bfloat16) for kept in (left, right))
    return jnp.einsum(subscripts, left, right, preferred_element_type=jnp.float32)


@jax.custom_vjp
def rounded_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns `x @ kernel`, [..., in] and [in, out] to [..., out], of rounded numbers.

    Gradients are such products too.
    """
    return multiply("...i,io->...o", bits(x), bits(kernel))


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Kept]:
    x_bits = bits(x)
    return multiply("...i,io->...o", x_bits, bits(kernel)), (x_bits, kernel)


def _product_backward(kept: Kept, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_bits, kernel = kept
    gradient_bits = bits(gradient)
    into_x = multiply("...o,io->...i", gradient_bits, bits(kernel))
    rows, columns = _as_rows(x_bits), _as_rows(gradient_bits)
    # The narrower is turned round in memory.
    if rows.shape[1] <= columns.shape[1]:
        return into_x, _summed_over_rows(rows, columns)
    return into_x, jax.lax.optimization_barrier(_summed_over_rows(columns, rows)).T


rounded_product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def rounded_scores(x: jax.Array, table: jax.Array) -> jax.Array:
    """Returns `x @ table.T`, [..., in] and [entries, in] to [..., entries], of rounded numbers.

    Gradients are such products too; that of the table lies as the table does, without being turned
    round.
    """
    return multiply("...i,vi->...v", bits(x), bits(table))


def _scores_forward(x: jax.Array, table: jax.Array) -> tuple[jax.Array, Kept]:
    x_bits = bits(x)
    return multiply("...i,vi->...v", x_bits, bits(table)), (x_bits, table)


def _scores_backward(kept: Kept, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_bits, table = kept
    gradient_bits = bits(gradient)
    into_x = multiply("...v,vi->...i", gradient_bits, bits(table))
    return into_x, _summed_over_rows(_as_rows(gradient_bits), _as_rows(x_bits))


rounded_scores.defvjp(_scores_forward, _scores_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def rounded_einsum(subscripts: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns `jnp.einsum` of rounded numbers, where every axis is of two of the three arrays.

    Gradients are such products too.
    """
    return multiply(subscripts, bits(left), bits(right))


def _einsum_forward(
    subscripts: str, left: jax.Array, right: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    kept = bits(left), bits(right)
    return multiply(subscripts, *kept), kept


def _einsum_backward(
    subscripts: str, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    left, right, result = subscripts.replace("->", ",").split(",")
    left_bits, right_bits = kept
    gradient_bits = bits(gradient)
    return (
        multiply(f"{result},{right}->{left}", gradient_bits, right_bits),
        multiply(f"{result},{left}->{right}", gradient_bits, left_bits),
    )


rounded_einsum.defvjp(_einsum_forward, _einsum_backward)


def _as_rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _summed_over_rows(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns the product of `left.T` and `right`, bits of [rows, m] and [rows, n], as [m, n].

    The barrier has `left` turned round in memory, where the compiler's library of products wants
    it. The axis of size 1 keeps the compiler from finding that it was turned, for which it would
    widen both.
    """
    turned = jax.lax.optimization_barrier(left.T)
    return multiply("erm,emn->ern", turned[None], right[None])[0]
