"""Matrix products whose gradients are written by hand, and vectors that broadcast."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


def expand_like(x: jax.Array, vector: jax.Array) -> jax.Array:
    """A vector with leading axes of length one, as many as `x` has axes."""
    return jnp.expand_dims(vector, range(x.ndim - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def float32_einsum(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """An einsum with a float32 result, whose backward products run in the inputs' dtype.

    (By itself, a float32 result would make both backward products of bfloat16 inputs float32.)
    """
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _float32_einsum_forward(spec, x, y):
    return float32_einsum(spec, x, y), (x, y)


def _float32_einsum_backward(spec, inputs, cotangent):
    x, y = inputs
    cotangent = cotangent.astype(x.dtype)
    to_x = jax.linear_transpose(lambda x: jnp.einsum(spec, x, y), x)
    to_y = jax.linear_transpose(lambda y: jnp.einsum(spec, x, y), y)
    return to_x(cotangent) + to_y(cotangent)


float32_einsum.defvjp(_float32_einsum_forward, _float32_einsum_backward)


@jax.custom_vjp
def matrix_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel: [..., I] and [I, O], of one dtype, to [..., O], of that dtype.

    There is no forward-mode derivative (`jax.jvp`, `jax.hessian`).

    Of the kernel's gradient x^T y, XLA on a CPU transposes x. As JAX writes it, that is not seen
    to be possible, and the product runs at half the rate; here x is the narrower factor.
    """
    return x @ kernel


def _matrix_product_forward(x, kernel):
    return matrix_product(x, kernel), (x, kernel)


def _matrix_product_backward(inputs, cotangent):
    x, kernel = inputs
    if x.shape[-1] <= cotangent.shape[-1]:
        to_kernel = _sum_over_rows(x, cotangent)
    else:  # The barrier keeps the compiler from making it the product above.
        to_kernel = jax.lax.optimization_barrier(_sum_over_rows(cotangent, x)).T
    return cotangent @ kernel.T, to_kernel


def _sum_over_rows(x, y):
    """x^T y over all rows: [..., I] and [..., O] to [I, O]."""
    rows = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(x, y, ((rows, rows), ((), ())))


matrix_product.defvjp(_matrix_product_forward, _matrix_product_backward)
