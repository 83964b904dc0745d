"""One step: micro-batches, steps that are not applied, random keys, donated buffers."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.objective import distill, pretrain, transfer
from mobilebert_jax.objective.loss_terms import Mean, Measured, Objective, Term
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.training.state import State
from mobilebert_jax.training.step import Step, Sums, gradient, make_step
from tests import tiny

KEY = jax.random.key(0)
SETTINGS = schema.Optimizer(warmup_steps=0, decay="constant", peak_learning_rate=0.01)
OPTIMIZER = build(SETTINGS, schedules.base_rate(SETTINGS, 10), schedules.uniform(tiny.LAYERS))

# Micro-batches

OBJECTIVES: dict[str, Objective] = {
    "pretraining": pretrain.objective(tiny.TEACHER, dropout=False),
    "dropout": pretrain.objective(tiny.TEACHER, dropout=True),
    "transfer": transfer.objective(tiny.STUDENT, tiny.TEACHER, schema.Transfer(), 0),
    "distillation": distill.objective(tiny.STUDENT, tiny.TEACHER, schema.Distill()),
}


@functools.cache
def sums_of(name: str, micro_batches: int) -> Sums:
    """Returns gradient, loss and metrics of a batch whose parts are very unequal."""
    params = tiny.teacher_params() if name in ("pretraining", "dropout") else tiny.student_params()
    run = tiny.jit(functools.partial(gradient, OBJECTIVES[name], micro_batches=micro_batches))
    return run(params, tiny.teacher_params(), tiny.batch(), KEY)


@pytest.mark.parametrize("count", [2, 4])
def test_the_parts_hold_unequal_numbers_of_tokens_and_predictions(count: int) -> None:
    """Otherwise a mean over parts would pass for the mean over the batch."""
    for name in ("input_mask", "masked_lm_weights"):
        rows = np.asarray(tiny.batch()[name]).sum(axis=1).reshape(-1, count).sum(axis=0)
        assert len(set(rows.tolist())) > 1


@pytest.mark.parametrize("micro_batches", [2, 4])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_add_up_to_the_batch(name: str, micro_batches: int) -> None:
    whole, parts = sums_of(name, 1), sums_of(name, micro_batches)
    assert float(parts.loss) == pytest.approx(float(whole.loss), rel=1e-5)
    tiny.assert_close(parts.gradient, whole.gradient)
    assert parts.metrics.keys() == whole.metrics.keys()
    for figure, mean in whole.metrics.items():
        assert float(parts.metrics[figure].value()) == pytest.approx(float(mean.value()), rel=1e-5)
        assert float(parts.metrics[figure].weight) == float(mean.weight)


def test_dropout_is_on_where_it_is_compared() -> None:
    assert float(sums_of("dropout", 1).loss) != float(sums_of("pretraining", 1).loss)


# Steps of an objective that needs no network


def simple_params() -> dict[str, Any]:
    return {
        "blocks": {"kernel": jnp.arange(1.0, 7.0).reshape(3, 2, 1)},
        "embeddings": {"word": jnp.array([2.0, -1.0])},
    }


def simple_objective(params: Any, teacher: Any, batch: Any, key: jax.Array) -> Measured:
    """Returns a loss whose value follows `scale`, and whose gradient alone follows `root`."""
    word = params["embeddings"]["word"]
    total = jnp.sum(batch["scale"] * jnp.sum(jnp.square(word)))
    total += jnp.sum(jnp.square(params["blocks"]["kernel"])) * batch["scale"].shape[0]
    # A root of 0 is finite and its derivative is not.
    total += jnp.sum(jnp.sqrt(batch["root"] * word[0]))
    weight = jnp.float32(batch["scale"].shape[0])
    draw = jax.random.uniform(key) * weight
    return Measured({"square": Term(Mean(total, weight), 1.0)}, {"draw": Mean(draw, weight)})


GOOD = {"scale": jnp.ones(4), "root": jnp.ones(4)}
BAD = {
    "loss": {"scale": jnp.array([1.0, jnp.nan, 1.0, 1.0]), "root": jnp.ones(4)},
    "infinite_loss": {"scale": jnp.array([1.0, jnp.inf, 1.0, 1.0]), "root": jnp.ones(4)},
    "gradient": {"scale": jnp.ones(4), "root": jnp.zeros(4)},
}


@pytest.fixture(scope="module")
def simple_step() -> Step:
    return tiny.jit(make_step(simple_objective, OPTIMIZER))


def simple_state(step: int = 0) -> State:
    params = simple_params()
    return State(params, OPTIMIZER.init(params), jnp.int32(step))


def test_a_step_moves_parameters_and_moments_and_is_counted(simple_step: Step) -> None:
    state, metrics = simple_step(simple_state(), None, GOOD, KEY)
    assert int(state.step) == 1
    assert float(metrics["nonfinite"]) == 0.0
    assert float(metrics["loss"]) == pytest.approx(5.0 + 91.0 + 2.0**0.5)
    assert float(metrics["square"]) == pytest.approx(float(metrics["loss"]))
    assert set(metrics) == {
        "loss",
        "square",
        "draw",
        "gradient_norm",
        "learning_rate",
        "nonfinite",
    }
    for new, old in zip(
        jax.tree.leaves((state.params, state.opt_state)),
        jax.tree.leaves((simple_params(), OPTIMIZER.init(simple_params()))),
        strict=True,
    ):
        assert (new != old).all()


@pytest.mark.parametrize("kind", BAD)
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(
    kind: str, simple_step: Step
) -> None:
    before, _ = simple_step(simple_state(), None, GOOD, KEY)
    after, metrics = simple_step(before, None, BAD[kind], KEY)
    assert float(metrics["nonfinite"]) == 1.0
    assert np.isfinite(float(metrics["loss"])) == (kind == "gradient")
    assert not np.isfinite(float(metrics["gradient_norm"]))
    assert int(after.step) == int(before.step) + 1
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, before.opt_state)
    recovered, metrics = simple_step(after, None, GOOD, KEY)
    assert float(metrics["nonfinite"]) == 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(recovered.params))


@pytest.mark.parametrize("rate", [1e30, math.inf, math.nan])
def test_an_update_that_is_not_finite_is_not_applied(rate: float) -> None:
    """Loss and gradient are finite here; no setting allows such a learning rate."""
    optimizer = build(SETTINGS, lambda step: jnp.float32(rate), schedules.uniform(3))
    before = simple_state()
    after, metrics = jax.jit(make_step(simple_objective, optimizer))(before, None, GOOD, KEY)
    assert np.isfinite(float(metrics["loss"])) and np.isfinite(float(metrics["gradient_norm"]))
    assert float(metrics["nonfinite"]) == 1.0
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, before.opt_state)


def test_the_key_of_a_step_depends_on_its_number_alone(simple_step: Step) -> None:
    state, drawn = simple_state(), []
    for _ in range(4):
        state, metrics = simple_step(state, None, GOOD, KEY)
        drawn.append(float(metrics["draw"]))
    assert len(set(drawn)) == 4
    for step in (3, 1):
        _, metrics = simple_step(simple_state(step), None, GOOD, KEY)
        assert float(metrics["draw"]) == drawn[step]
    _, metrics = simple_step(simple_state(1), None, GOOD, jax.random.key(1))
    assert float(metrics["draw"]) != drawn[1]
