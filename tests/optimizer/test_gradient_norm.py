"""The gate against spikes: what it leaves out, and that it never stays shut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.objective.loss_terms import Mean, Measured, Term
from mobilebert_jax.optimizer import gradient_norm, schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.training.state import State
from mobilebert_jax.training.step import make_step
from tests import tiny

SETTINGS = schema.Optimizer(
    warmup_steps=0, decay="constant", peak_learning_rate=0.01, skip_gradient_norm_ratio=4.0
)


def memory(norms: list[float]) -> jax.Array:
    recent = gradient_norm.no_norms()
    for norm in norms:
        recent = gradient_norm.remember(recent, jnp.float32(norm))
    return recent


def test_nothing_is_judged_before_half_the_window_was_seen() -> None:
    half = gradient_norm.WINDOW // 2
    assert not gradient_norm.is_spike(gradient_norm.no_norms(), jnp.float32(1e9), 2.0)
    assert not gradient_norm.is_spike(memory([1.0] * (half - 1)), jnp.float32(1e9), 2.0)
    assert gradient_norm.is_spike(memory([1.0] * half), jnp.float32(1e9), 2.0)


def test_the_bound_is_a_multiple_of_the_median_of_the_window() -> None:
    seen = np.random.default_rng(0).uniform(1, 9, 200).astype(np.float32)
    bound = 3.0 * float(np.median(seen[-gradient_norm.WINDOW :]))
    recent = memory(seen.tolist())
    assert not gradient_norm.is_spike(recent, jnp.float32(bound * 0.999), 3.0)
    assert gradient_norm.is_spike(recent, jnp.float32(bound * 1.001), 3.0)


def test_what_is_not_finite_is_not_remembered() -> None:
    recent = memory([1.0, 2.0])
    for bad in (jnp.nan, jnp.inf):
        np.testing.assert_array_equal(gradient_norm.remember(recent, jnp.float32(bad)), recent)


def objective(params: dict, teacher: object, batch: dict, key: jax.Array) -> Measured:
    # Linear: the gradient's norm is that of `slope`.
    total = jnp.sum(params["embeddings"]["word"] * batch["slope"])
    blocks = jnp.sum(params["blocks"]["kernel"]) * 0.0
    return Measured({"linear": Term(Mean(total + blocks, jnp.float32(1.0)), 1.0)}, {})


def states(norms: list[float], settings: schema.Optimizer = SETTINGS, **phases: int) -> list:
    """Returns (state, metrics) after each step whose gradient has one of these norms."""
    params = {"embeddings": {"word": jnp.ones(4)}, "blocks": {"kernel": jnp.ones((2, 3, 3))}}
    optimizer = build(settings, schedules.base_rate(settings, 1000), schedules.uniform(2), **phases)
    step = jax.jit(make_step(objective, optimizer))
    state, found = State(params, optimizer.init(params), jnp.int32(0)), []
    for norm in norms:
        batch = {"slope": jnp.full(4, norm / 2)}
        state, metrics = step(state, None, batch, jax.random.key(0))
        found.append((state, {name: float(value) for name, value in metrics.items()}))
    return found


def test_a_spike_changes_nothing_but_the_count_and_the_memory() -> None:
    (before, _), (after, metrics), (following, last) = states([1.0] * 40 + [5.0, 1.0])[-3:]
    assert metrics["gradient_norm"] == pytest.approx(5.0)
    assert (metrics["spike"], metrics["nonfinite"]) == (1.0, 0.0)
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    moments = (tiny.moments(state.opt_state) for state in (after, before))
    jax.tree.map(np.testing.assert_array_equal, *moments)
    assert float(after.opt_state.recent_norms[0]) == pytest.approx(5.0)
    assert int(after.step) == int(before.step) + 1
    assert last["spike"] == 0.0
    assert not jnp.array_equal(
        following.params["embeddings"]["word"], after.params["embeddings"]["word"]
    )


def test_below_the_bound_every_step_is_applied() -> None:
    assert [m["spike"] for _, m in states([1.0] * 40 + [3.9])] == [0.0] * 41


def test_gradients_that_stay_large_are_let_through_in_time() -> None:
    found = [m["spike"] for _, m in states([1.0] * 64 + [9.0] * 64)]
    left_out = int(sum(found))
    assert 0 < left_out <= gradient_norm.WINDOW // 2 + 1
    assert found[-1] == 0.0


def test_a_new_turn_of_layers_begins_with_an_empty_memory() -> None:
    found = states([1.0] * 40 + [5.0], restart_every=40)
    # Step 40 still belongs to the turn before.
    assert found[-1][1]["spike"] == 1.0
    assert jnp.isnan(found[-1][0].opt_state.recent_norms).all()


def test_without_a_gate_there_is_no_figure_and_no_memory() -> None:
    settings = schema.Optimizer(warmup_steps=0, decay="constant", peak_learning_rate=0.01)
    state, metrics = states([1.0] * 40 + [1e6], settings)[-1]
    assert "spike" not in metrics
    assert not isinstance(state.opt_state, gradient_norm.SpikeState)
