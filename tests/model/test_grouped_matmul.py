"""Products in groups are those of a block-diagonal kernel, whose zeros no gradient reaches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.bfloat16_matmul import rounded_matmul
from mobilebert_jax.model.grouped_matmul import grouped_matmul
from mobilebert_jax.model.layers import Network, matmul
from mobilebert_jax.model.quantization import rounded_weights
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from tests import tiny
from tests.parity.cases import QUICK_COMPILATION, random_batch, random_params

pytestmark = pytest.mark.usefixtures("quick")

GROUPS = 4


def block_diagonal(kernel):
    """Returns the dense kernel [groups * in, groups * out] of a kernel in groups."""
    return jax.scipy.linalg.block_diag(*kernel)


def drawn(shape, inputs, outputs, dtype="float32"):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (*shape, GROUPS * inputs), dtype)
    kernel = jax.random.normal(keys[1], (GROUPS, inputs, outputs), dtype)
    wanted = jax.random.normal(keys[2], (*shape, GROUPS * outputs), dtype)
    return x, kernel, wanted


@pytest.mark.parametrize("multiply", [matmul, rounded_matmul], ids=["exact", "rounded"])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("shape", "inputs", "outputs"), [((7,), 3, 5), ((2, 7), 5, 3)])
def test_product_and_gradients_are_those_of_the_block_diagonal(
    shape, inputs, outputs, apart, multiply
):
    x, kernel, wanted = drawn(shape, inputs, outputs)

    def loss(product, x, kernel):
        return jnp.sum(product(x, kernel) * wanted)

    grouped = functools.partial(grouped_matmul, multiply, apart=apart)
    whole = lambda x, kernel: multiply(x, block_diagonal(kernel))  # noqa: E731
    found, expected = grouped(x, kernel), whole(x, kernel)
    assert found.shape == (*shape, GROUPS * outputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    ours = jax.jit(jax.grad(functools.partial(loss, grouped), (0, 1)))(x, kernel)
    theirs = jax.grad(functools.partial(loss, whole), (0, 1))(x, kernel)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_bfloat16():
    x, kernel, _ = drawn((6,), 3, 5, "bfloat16")
    found = grouped_matmul(matmul, x, kernel)
    assert found.dtype == jnp.bfloat16
    exact = x.astype("float32") @ block_diagonal(kernel.astype("float32"))
    np.testing.assert_allclose(found.astype("float32"), exact, rtol=2e-2, atol=2e-2)


def test_a_group_reads_no_other():
    x, kernel, _ = drawn((6,), 3, 5)
    changed = grouped_matmul(matmul, x.at[:, 3:6].add(1.0), kernel)
    different = np.abs(changed - grouped_matmul(matmul, x, kernel)).max(axis=0) > 0
    assert different.reshape(GROUPS, 5).all(axis=1).tolist() == [False, True, False, False]
    assert different.sum() == 5


def test_each_output_of_each_group_has_its_own_scale_in_8_bits():
    _, kernel, _ = drawn((1,), 3, 5)
    found = rounded_weights(kernel, "rounded")
    expected = jnp.stack([rounded_weights(matrix, "rounded") for matrix in kernel])
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - kernel).max() > 1e-4


# A whole network

GROUPED = dataclasses.replace(
    sizes.SQUEEZEBERT,
    vocab_size=50,
    max_position_embeddings=16,
    hidden_size=16,
    intra_bottleneck_size=16,
    embedding_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    hidden_dropout_prob=0.0,
    post_attention_groups=2,
)
DENSE = dataclasses.replace(GROUPED, **dict.fromkeys(sizes.grouped_layers(GROUPED), 1))
BATCH = {name: jnp.asarray(array) for name, array in random_batch(GROUPED).items()}
PARAMS = jax.tree.map(jnp.asarray, random_params(GROUPED))


def in_groups(path):
    return path[0].key == "blocks" and path[-1].key == "kernel"


def as_dense(params):
    """Returns the parameters of the network without groups that computes the same."""

    def whole(path, leaf):
        return jnp.stack([block_diagonal(one) for one in leaf]) if in_groups(path) else leaf

    return jax.tree_util.tree_map_with_path(whole, params)


@functools.cache
def value_and_gradient(network):
    """Returns a loss and its gradients at `PARAMS`, or at the dense kernels that stand for them."""

    def loss(params):
        hidden_BTD = encoder.encode(network, params, BATCH).hidden_BTD
        predicted = encoder.predict(network, params, hidden_BTD, BATCH)
        return -jnp.mean(jax.nn.log_softmax(predicted.masked_lm_BPV)[..., 3])

    run = jax.jit(jax.value_and_grad(loss), compiler_options=QUICK_COMPILATION)
    return run(PARAMS if network.config == GROUPED else as_dense(PARAMS))


def test_a_network_in_groups_is_a_bert_whose_kernels_are_block_diagonal():
    loss, gradients = value_and_gradient(Network(GROUPED))
    dense_loss, dense_gradients = value_and_gradient(Network(DENSE))
    assert loss == pytest.approx(float(dense_loss), rel=1e-6)
    diagonal = as_dense(jax.tree.map(jnp.ones_like, PARAMS))
    beside = jax.tree_util.tree_map_with_path(
        lambda path, gradient, ones: gradient * ones if in_groups(path) else gradient,
        dense_gradients,
        diagonal,
    )
    tiny.assert_close(as_dense(gradients), beside)
    # What a mask would have to keep out: a dense layer's gradient beside the blocks is not 0.
    query = dense_gradients["blocks"]["attention"]["query"]["kernel"]
    assert np.abs(query * (1 - diagonal["blocks"]["attention"]["query"]["kernel"])).max() > 0


@pytest.mark.parametrize("settings", [{"bfloat16_matmuls": True}, {"dtype": "bfloat16"}])
def test_rounded_products_stay_close(settings):
    loss, gradients = value_and_gradient(Network(GROUPED))
    rough_loss, rough_gradients = value_and_gradient(Network(GROUPED, **settings))
    assert rough_loss != loss
    assert rough_loss == pytest.approx(float(loss), rel=1e-2)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rough_gradients))
    tiny.assert_close(rough_gradients, gradients, 0.1)


def test_kernels_in_groups_are_rounded_in_training_for_8_bits():
    network = Network(GROUPED, quantized="rounded")
    made = jax.eval_shape(lambda: encoder.init(network, jax.random.key(0)))
    ranges = {"lowest": jnp.full((2,), -8.0), "highest": jnp.full((2,), 8.0)}

    def filled(made, given):
        return {
            name: filled(part, given.get(name, {}))
            if isinstance(part, dict)
            else given.get(name, ranges.get(name))
            for name, part in made.items()
        }

    encode = jax.jit(encoder.encode, static_argnums=0, compiler_options=QUICK_COMPILATION)
    rounded = encode(network, filled(made, PARAMS), BATCH).hidden_BTD
    exact = encode(Network(GROUPED, quantized_mask=True), PARAMS, BATCH).hidden_BTD
    assert 0 < np.abs(rounded - exact).max() < 0.2 * np.abs(exact).max()


def test_lamb_moves_a_kernel_in_groups_like_its_block_diagonal():
    """The trust ratio is one for a layer's whole kernel, not one for a group."""
    settings = schema.Optimizer(name="lamb", warmup_steps=0, decay="constant", clip_norm=1e6)

    def updated(config, params, gradients):
        multipliers = schedules.uniform(config.num_hidden_layers)
        optimizer = build(settings, schedules.base_rate(settings, 4), multipliers)
        update = tiny.jit(optimizer.transformation.update)
        state, norm = optimizer.init(params), jnp.float32(1.0)
        updates, _ = update(gradients, state, params, step=0, gradient_norm=norm)
        return updates

    _, gradients = value_and_gradient(Network(GROUPED))
    ours = updated(GROUPED, PARAMS, gradients)
    theirs = updated(DENSE, as_dense(PARAMS), as_dense(gradients))
    tiny.assert_close(as_dense(ours), theirs)
    kernel = ours["blocks"]["attention"]["query"]["kernel"]
    assert kernel.shape == (2, 4, 4, 4) and np.abs(kernel).min() > 0
