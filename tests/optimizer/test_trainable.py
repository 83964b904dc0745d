"""A phase that updates its own part alone ends as one that updates everything at rate 0."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.objective.loss_terms import Mean, Measured, Term
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.optimizer.trainable import EVERYTHING, Part
from mobilebert_jax.training.state import State
from mobilebert_jax.training.step import make_step
from tests import tiny

LAYERS, T = 3, 10


def params() -> dict[str, Any]:
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return {
        "blocks": {"dense": {"kernel": draw(LAYERS, 4, 5), "bias": draw(LAYERS, 5)}},
        "embeddings": {"word": draw(7, 4)},
    }


def objective(layer: int, lower_layer_lr_scale: float) -> Any:
    """A loss with gradients where transfer of `layer` has them, embeddings of frozen rate too."""
    first = 0 if lower_layer_lr_scale else layer

    def measure(params: Any, teacher: Any, batch: Any, key: Any) -> Measured:
        taught = jax.tree.map(lambda p: p[first : layer + 1], params["blocks"])
        parts = [taught, params["embeddings"]] if lower_layer_lr_scale else [taught]
        gap = sum(jnp.sum((leaf - 3.0) ** 2) for leaf in jax.tree.leaves(parts))
        return Measured({"gap": Term(Mean(gap, jnp.float32(1.0)), 1.0)}, {})

    return measure


@pytest.mark.parametrize("kind", ["lamb", "adamw"])
@pytest.mark.parametrize("lower_layer_lr_scale", [0.1, 0.0])
def test_a_phase_that_updates_its_own_part_ends_as_one_that_updates_everything(
    lower_layer_lr_scale: float, kind: Any
) -> None:
    layer = 1
    settings = schema.Optimizer(
        name=kind, warmup_steps=0, decay="constant", peak_learning_rate=0.01
    )
    optimizer = build(
        settings,
        schedules.base_rate(settings, T * LAYERS),
        schedules.progressive(T * LAYERS, LAYERS, lower_layer_lr_scale),
        restart_every=T,
    )
    part = Part(blocks=(0 if lower_layer_lr_scale else layer, layer + 1))
    ends = []
    for changed in (EVERYTHING, part):
        step = jax.jit(make_step(objective(layer, lower_layer_lr_scale), optimizer, part=changed))
        # From the first step of the phase, with moments that the last one of the phase before
        # has set to 0, to the step that sets them to 0 again.
        state = State(params(), optimizer.init(params()), jnp.int32(T * layer + 1))
        for _ in range(T):
            middle = state
            state, metrics = step(state, None, {}, jax.random.key(0))
        ends.append(
            (
                tiny.moments(middle.opt_state),
                state.params,
                tiny.moments(state.opt_state),
                metrics,
            )
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *ends)
    moments, after, last, _ = ends[1]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(part.of(moments[0])))
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(last))
    moved = after["blocks"]["dense"]["kernel"] != params()["blocks"]["dense"]["kernel"]
    assert moved.any(axis=(1, 2)).tolist() == [lower_layer_lr_scale > 0, True, False]
    np.testing.assert_array_equal(after["embeddings"]["word"], params()["embeddings"]["word"])


def test_a_part_is_put_back_where_it_was_taken_from() -> None:
    whole, part = params(), Part(blocks=(1, 3))
    taken = part.of(whole)
    assert taken["blocks"]["dense"]["bias"].shape == (2, 5) and set(taken) == {"blocks"}
    again = part.put(whole, jax.tree.map(lambda x: x + 1, taken))
    expected = whole["blocks"]["dense"]["bias"] + jnp.array([[0.0], [1.0], [1.0]])
    np.testing.assert_array_equal(again["blocks"]["dense"]["bias"], expected)
    np.testing.assert_array_equal(again["embeddings"]["word"], whole["embeddings"]["word"])
    assert EVERYTHING.of(whole) is whole and EVERYTHING.put(params(), whole) is whole


def test_so_is_a_part_of_an_optimisers_state() -> None:
    settings = schema.Optimizer(name="adamw", bias_correction=True, skip_gradient_norm_ratio=4.0)
    optimizer = build(settings, schedules.base_rate(settings, 9), schedules.uniform(LAYERS))
    whole, part = optimizer.init(params()), Part(blocks=(1, 3))
    taken = part.of_state(whole)
    first, _ = tiny.moments(taken)
    assert first["blocks"]["dense"]["bias"].shape == (2, 5)
    assert first["embeddings"]["word"].shape == (7, 4)  # passed through
    again = part.put_state(whole, jax.tree.map(lambda x: x + 1, taken))
    assert jax.tree.structure(again) == jax.tree.structure(whole)
    first, _ = tiny.moments(again)
    np.testing.assert_array_equal(first["blocks"]["dense"]["bias"][:, 0], [0.0, 1.0, 1.0])
    assert EVERYTHING.of_state(whole) is whole and EVERYTHING.put_state(whole, again) is again
