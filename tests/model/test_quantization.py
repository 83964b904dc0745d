"""Numbers as 8 bits hold them: values, gradients, ranges that follow what is seen."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.model import encoder, quantization, sizes
from mobilebert_jax.model.layers import Network, TaskHead
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.optimizer.gradient_norm import gradient_norm
from mobilebert_jax.optimizer.masks import is_range
from mobilebert_jax.optimizer.trainable import EVERYTHING
from tests import tiny

pytestmark = pytest.mark.usefixtures("quick")

TINY = dataclasses.replace(
    sizes.MOBILEBERT_RELU6,
    vocab_size=30,
    max_position_embeddings=8,
    hidden_size=16,
    intra_bottleneck_size=8,
    embedding_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_feedforward_networks=2,
    attention_probs_dropout_prob=0.0,
)


def network(**settings) -> Network:
    return Network(TINY, task=TaskHead("first", 3), **settings)


@pytest.fixture(scope="module")
def params():
    key = jax.random.key(0)
    made = jax.jit(lambda: nn.unbox(encoder.init(network(quantized="rounded"), key)))()
    # Larger than at initialisation, so that features fill the initial ranges.
    factors = {"kernel": 8.0, "word": 40.0, "position": 40.0}
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x * factors.get(path[-1].key, 1.0), made
    )


def outputs(params, batch, **settings) -> jax.Array:
    return jax.jit(lambda p: encoder.task_outputs(network(**settings), p, batch))(params)


@pytest.fixture(scope="module")
def batch():
    ids = jax.random.randint(jax.random.key(1), (4, 8), 0, 30)
    mask = jnp.ones_like(ids).at[1, 5:].set(0)
    return {"input_ids": ids, "segment_ids": ids * 0, "input_mask": mask}


@pytest.mark.parametrize(("lowest", "highest"), [(-6.0, 6.0), (-0.3, 5.0), (0.0, 4.0), (1.0, 4.0)])
def test_an_activation_takes_one_of_256_values_one_of_which_is_0(lowest, highest):
    x = jnp.linspace(-9, 9, 4001)
    found = quantization.rounded(x, jnp.float32(lowest), jnp.float32(highest))
    values = np.unique(np.asarray(found))
    assert len(values) == 256 and 0.0 in values
    step = (highest - min(lowest, 0.0)) / 255
    inside = (x >= values[0]) & (x <= values[-1])
    assert jnp.max(jnp.abs(found - x), where=inside, initial=0) <= step / 2 + 1e-6
    assert values[0] == pytest.approx(min(lowest, 0.0), abs=step)


def test_the_gradient_passes_inside_the_range_and_ranges_learn_what_was_seen():
    x = jnp.array([-7.0, -1.0, 2.0, 9.0])
    total = lambda x, low, high: quantization.rounded(x, low, high).sum()  # noqa: E731
    dx, low, high = jax.grad(total, (0, 1, 2))(x, jnp.float32(-2.0), jnp.float32(3.0))
    assert dx.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert (float(low), float(high)) == (-2.0 + 7.0, 3.0 - 9.0)


def test_weights_take_255_values_symmetric_about_0_a_scale_for_each_output():
    w = jax.random.normal(jax.random.key(0), (400, 3)) * jnp.array([1.0, 10.0, 0.0])
    found = np.asarray(quantization.rounded_weights(w, "rounded"))
    for column, widest in zip(found.T, np.abs(w).max(axis=0), strict=True):
        assert len(np.unique(column)) <= 255
        assert np.abs(column).max() == pytest.approx(widest, rel=1e-6)
    gradient = jax.grad(lambda w: (quantization.rounded_weights(w, "rounded") * 2).sum())(w)
    assert (gradient == 2).all()


def test_only_blocks_are_rounded_and_padding_is_hidden_in_8_bits(params, batch):
    assert {path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(params)
            if is_range(path)} == {"blocks"}  # fmt: skip
    # Ranges of +-6 hold these features, so that rounding changes little, and something.
    exact = outputs(params, batch, quantized_mask=True)
    found = outputs(params, batch, quantized="rounded")
    assert not jnp.array_equal(exact, found)
    np.testing.assert_allclose(found, exact, atol=0.1 * float(jnp.abs(exact).max()))
    observed = outputs(params, batch, quantized="observed")
    np.testing.assert_allclose(observed, exact, rtol=1e-4, atol=1e-5)


def test_observing_tells_the_least_and_greatest_of_every_tensor(params, batch):
    def unused(params):
        return 0.0 * encoder.task_outputs(network(quantized="observed"), params, batch).sum()

    distances = jax.jit(jax.grad(unused))(params)
    ranges = params["blocks"]["input"]["input_range"]
    shown = {name: ranges[name] - distances["blocks"]["input"]["input_range"][name]
             for name in ranges}  # fmt: skip
    plain = network(quantized_mask=True)
    embedded = encoder.encode(plain, params, batch, layers=0).embedded_BTD
    assert shown["highest"][0] == pytest.approx(float(embedded.max()), rel=1e-4)
    first = encoder.encode(plain, params, batch, layers=1).hidden_BTD
    assert shown["lowest"][1] == pytest.approx(float(first.min()), rel=1e-4)


def test_an_update_moves_a_range_a_thousandth_of_the_way_and_nothing_else_of_it(params):
    settings = schema.Optimizer(
        name="adamw", peak_learning_rate=1e-2, warmup_steps=0, decay="constant", clip_norm=1.0
    )
    optimizer = build(settings, schedules.base_rate(settings, 10), schedules.uniform(2))
    gradients = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, 5.0 if is_range(path) else 1e-3), params
    )
    norm = gradient_norm(gradients, EVERYTHING)
    updates, opt_state = jax.jit(
        lambda g, p: optimizer.transformation.update(
            g, optimizer.init(p), p, step=jnp.int32(0), gradient_norm=norm
        )
    )(gradients, params)
    others = sum(x.size for path, x in jax.tree_util.tree_leaves_with_path(params)
                 if not is_range(path))  # fmt: skip
    assert float(norm) == pytest.approx(1e-3 * others**0.5, rel=1e-4)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        if is_range(path):
            np.testing.assert_allclose(update, -0.005, rtol=1e-5)
    first, _ = tiny.moments(opt_state)
    assert all((m == 0).all() for path, m in jax.tree_util.tree_leaves_with_path(first)
               if is_range(path))  # fmt: skip
