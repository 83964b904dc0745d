"""A transformation over stacked blocks is that of every block by itself; so is any of optax's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.objective.loss_terms import Mean, Measured, Term
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build, named_rule
from mobilebert_jax.optimizer.layerwise import restart_where_frozen, scale_by_learning_rates
from mobilebert_jax.optimizer.schedules import Multiplier
from mobilebert_jax.optimizer.stacked import stacked
from mobilebert_jax.training.state import State
from mobilebert_jax.training.step import make_step

N = 3


def draw(seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return {
        "blocks": {"dense": {"kernel": normal(N, 6, 4), "bias": normal(N, 4)}},
        "embeddings": {"word": normal(7, 4)},
    }


RULES: dict[str, optax.GradientTransformation] = {
    "adam": optax.adam(0.1),
    "lion": optax.lion(0.1),
    "lamb": optax.lamb(0.1),
    "adafactor": optax.adafactor(0.1, min_dim_size_to_factor=2),
    "muon": optax.contrib.muon(0.1),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9)),
}


@pytest.mark.parametrize("name", RULES)
def test_every_block_is_updated_as_if_it_were_alone(name: str) -> None:
    rule, whole = RULES[name], stacked(RULES[name])
    params, update = draw(0), jax.jit(whole.update)
    blocks = [jax.tree.map(lambda x, i=i: x[i], params["blocks"]) for i in range(N)]
    others = {"embeddings": params["embeddings"]}
    states, state = [rule.init(tree) for tree in [*blocks, others]], whole.init(params)
    for step in range(3):
        gradients = draw(1 + step)
        updates, state = update(gradients, state, params)
        for i in range(N + 1):
            pick = (lambda x, i=i: x[i]) if i < N else (lambda x: x)
            alone = "blocks" if i < N else "embeddings"
            ours = jax.tree.map(pick, updates[alone])
            gradient = jax.tree.map(pick, gradients[alone])
            weights = jax.tree.map(pick, params[alone])
            if i == N:
                gradient, weights = {alone: gradient}, {alone: weights}
                ours = {alone: ours}
            expected, states[i] = rule.update(gradient, states[i], weights)
            for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def test_updates_of_some_blocks_leave_everything_else_as_it_is() -> None:
    whole = stacked(optax.adam(0.1))
    params, gradients = draw(0), draw(1)
    state = whole.init(params)
    part = state._replace(blocks=jax.tree.map(lambda x: x[1:2], state.blocks))
    some = {"blocks": jax.tree.map(lambda x: x[1:2], gradients["blocks"])}
    updates, after = whole.update(some, part, some)
    assert set(updates) == {"blocks"}
    jax.tree.map(np.testing.assert_array_equal, after.others, state.others)
    expected, _ = whole.update(gradients, state, params)
    np.testing.assert_allclose(
        updates["blocks"]["dense"]["kernel"][0], expected["blocks"]["dense"]["kernel"][1]
    )


def test_each_layer_has_its_learning_rate_at_the_step_of_the_state() -> None:
    rates = scale_by_learning_rates(
        lambda step: 0.1 * step, lambda step: Multiplier(jnp.array([0.0, 1.0, 3.0]), jnp.float32(2))
    )
    ones = jax.tree.map(jnp.ones_like, draw(0))
    updates, _ = rates.update(ones, rates.init(ones), step=jnp.int32(5))
    np.testing.assert_allclose(updates["blocks"]["dense"]["bias"][:, 0], [0.0, -0.5, -1.5])
    np.testing.assert_allclose(updates["embeddings"]["word"], -1.0)


def test_what_is_frozen_begins_anew_its_count_too() -> None:
    def multipliers(step: jax.Array) -> Multiplier:
        return Multiplier(jnp.array([1.0, 0.0, 1.0]) * (step != 2), jnp.float32(0.0))

    restarting = restart_where_frozen(stacked(optax.scale_by_adam()), multipliers)
    params = draw(0)
    state, fresh = restarting.init(params), restarting.init(params)
    counts = []
    for step in range(5):
        _, state = restarting.update(draw(1), state, params, step=jnp.int32(step))
        counts.append(state.blocks.count.tolist())
        jax.tree.map(np.testing.assert_array_equal, state.others, fresh.others)
    assert counts == [[1, 0, 1], [2, 0, 2], [0, 0, 0], [1, 0, 1], [2, 0, 2]]
    assert not np.any(state.blocks.mu["dense"]["kernel"][1])


# Rules of optax that an experiment names


def quadratic(params: Any, teacher: Any, batch: Any, key: Any) -> Any:
    gap = sum(jnp.sum(jnp.square(leaf - 0.5)) for leaf in jax.tree.leaves(params))
    return Measured({"gap": Term(Mean(gap, jnp.float32(1.0)), 1.0)}, {})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("optax.lion", ("b1=0.8", "weight_decay=0.0")),
        ("optax.adafactor", ("multiply_by_parameter_scale=False", "min_dim_size_to_factor=4")),
        ("optax.contrib.muon", ()),
    ],
)
def test_any_transformation_of_optax_trains(name: str, arguments: tuple[str, ...]) -> None:
    settings = schema.Optimizer(
        name=name, arguments=arguments, warmup_steps=5, peak_learning_rate=0.05, clip_norm=1e6
    )
    base = schedules.base_rate(settings, 60)
    optimizer = build(settings, base, schedules.uniform(N))
    step = jax.jit(make_step(quadratic, optimizer))
    state = State(draw(0), optimizer.init(draw(0)), jnp.int32(0))
    losses = []
    for _ in range(60):
        state, metrics = step(state, None, {}, jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.4 * losses[0]
    assert float(metrics["learning_rate"]) == pytest.approx(float(base(59)), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("lomb", (), "optimizer.name='lomb'"),
        ("optax.lyon", (), "the nearest is optax.lion"),
        ("optx.lion", (), "No module named 'optx'"),
        ("optax.lion", ("b1",), "'b1' has no value; write NAME=VALUE"),
        ("optax.lion", ("b1=high",), "which is no literal"),
        ("optax.lion", ("beta=0.1",), "unexpected keyword argument 'beta'"),
        ("math.floor", (), "optimizer.arguments=() for math.floor"),
        ("builtins.dict", (), "returns no optax transformation"),
    ],
)
def test_what_is_no_transformation_is_refused(
    name: str, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError) as error:
        named_rule(name, arguments)
    assert message in str(error.value)
