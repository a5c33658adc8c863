"""Matrix products whose gradients are written by hand, beside NumPy's, and the dense layer's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electra_jax.layers import dense
from electra_jax.products import matrix_product


@pytest.mark.parametrize("wide", [(6, 4), (4, 6), (5, 5)], ids=str)
def test_a_product_has_the_gradients_of_the_plain_one(wide):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, wide[0]))
    kernel = rng.standard_normal(wide)
    cotangent = rng.standard_normal((2, 3, wide[1]))
    found, backward = jax.vjp(matrix_product, jnp.float32(x), jnp.float32(kernel))
    to_x, to_kernel = backward(jnp.float32(cotangent))
    np.testing.assert_allclose(found, x @ kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(to_x, cotangent @ kernel.T, rtol=1e-4, atol=1e-5)
    by_hand = x.reshape(6, -1).T @ cotangent.reshape(6, -1)
    np.testing.assert_allclose(to_kernel, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(3, 4), (4, 3)], ids=str)
def test_its_products_of_bfloat16_stay_bfloat16(sizes):
    x, kernel = jnp.ones((2, sizes[0]), jnp.bfloat16), jnp.ones(sizes, jnp.bfloat16)

    def gradients(x, kernel):
        found, backward = jax.vjp(matrix_product, x, kernel)
        return backward(found)

    program = str(jax.make_jaxpr(gradients)(x, kernel))
    assert "bf16[3,4] = dot_general" in program and "f32[" not in program  # x^T y or y^T x


@pytest.mark.parametrize("sizes", [(256, 1024), (1024, 256)], ids=str)
def test_no_gradient_is_a_product_of_two_transposed_factors(sizes):
    """The form that XLA on a CPU runs at half the rate: x^T (y^T)^T, contracting axes 0 and 1."""
    x = jnp.ones((8, 128, sizes[0]))
    params = {"kernel": jnp.ones(sizes), "bias": jnp.ones(sizes[1])}

    def loss(x, params):
        return jnp.square(dense(x, params)).sum()

    program = jax.jit(jax.grad(loss, (0, 1))).lower(x, params).compile().as_text()
    assert "dot(" in program
    assert "lhs_contracting_dims={0}, rhs_contracting_dims={1}" not in program
