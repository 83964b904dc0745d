"""Products of numbers rounded to bfloat16 and summed in float32, for CPUs that multiply bfloat16
faster than float32.

Rounded numbers are kept as the integers that their bits are: what would be stored as bfloat16, such
as a loop's stack of residuals, a CPU's compiler widens to float32, and multiplies as float32.
"""

import functools

import jax
import jax.numpy as jnp


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


def rounded_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns `x @ kernel`, [..., in] and [in, out] to [..., out], of rounded numbers.

    Its gradients are such matmuls too.
    """
    return _rounded("...i,io->...o", x, kernel)


def rounded_scores(x: jax.Array, table: jax.Array) -> jax.Array:
    """Returns `x @ table.T`, [..., in] and [out, in] to [..., out], of rounded numbers.

    Its gradients are such matmuls too.
    """
    return _rounded("...i,oi->...o", x, table)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded(subscripts: str, x: jax.Array, matrix: jax.Array) -> jax.Array:
    return multiply(subscripts, bits(x), bits(matrix))


def _matmul_forward(
    subscripts: str, x: jax.Array, matrix: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x_bits = bits(x)
    # A matrix of parameters is there anyhow: rounding it again costs less than keeping its bits.
    return multiply(subscripts, x_bits, bits(matrix)), (x_bits, matrix)


def _matmul_backward(
    subscripts: str, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    of_x, of_matrix, of_result = _arrays(subscripts)
    x_bits, matrix = kept
    gradient_bits = bits(gradient)
    into_x = multiply(f"{of_result},{of_matrix}->{of_x}", gradient_bits, bits(matrix))
    rows = {
        axis: array.reshape(-1, array.shape[-1])
        for axis, array in (("i", x_bits), ("o", gradient_bits))
    }
    return into_x, _summed_over_rows(*(rows[axis] for axis in of_matrix))


_rounded.defvjp(_matmul_forward, _matmul_backward)


def _arrays(subscripts: str) -> list[str]:
    """Returns the axes of both factors and of the result."""
    return subscripts.replace("->", ",").split(",")


def _summed_over_rows(left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns the matmul of `left.T` and `right`, bits of [rows, m] and [rows, n], as [m, n].

    One of the two must be transposed in memory, where the compiler's matmul library wants
    it, and with `right` the result: whichever moves fewer numbers. The barriers keep the compiler
    from doing otherwise. The axis of size 1 keeps it from finding that a factor was turned, for
    which it would widen both.
    """
    barrier = jax.lax.optimization_barrier

    def multiply_turned(left: jax.Array, right: jax.Array) -> jax.Array:
        return multiply("erm,emn->ern", barrier(left.T)[None], right[None])[0]

    if left.size <= right.size + left.shape[1] * right.shape[1]:
        return multiply_turned(left, right)
    return barrier(multiply_turned(right, left)).T


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def rounded_einsum(subscripts: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """Returns `jnp.einsum` of rounded numbers, where every axis is of two of the three arrays.

    Its gradients are such matmuls too.
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
    of_left, of_right, of_result = _arrays(subscripts)
    left_bits, right_bits = kept
    gradient_bits = bits(gradient)
    return (
        multiply(f"{of_result},{of_right}->{of_left}", gradient_bits, right_bits),
        multiply(f"{of_result},{of_left}->{of_right}", gradient_bits, left_bits),
    )


rounded_einsum.defvjp(_einsum_forward, _einsum_backward)
