"""Layer-wise transfer: each loss by its definition, and nothing computed that no loss reads.

Shapes: N layers compared, M teacher feature maps, B batch, T positions, D width, H heads.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.block import Captured
from mobilebert_jax.objective import distill, transfer
from mobilebert_jax.objective.loss_terms import Measured, Objective
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.optimizer.gradient_norm import gradient_norm
from mobilebert_jax.optimizer.trainable import EVERYTHING
from mobilebert_jax.training.state import State
from mobilebert_jax.training.step import Sums, gradient, make_step
from tests import tiny
from tests.model import programs

PUBLISHED = schema.Transfer()
EVERY = tuple(range(tiny.LAYERS))
BATCH = tiny.batch()
KEY = jax.random.key(0)

# The four losses, number by number


def random_capture(seed: int, heads: int = 2) -> Captured:
    generator = np.random.default_rng(seed)
    # Far from mean 0 and variance 1, so that normalisation and statistics matter.
    features = generator.normal(0.3 * seed, 1.0 + seed, (2, 3, 5, 4))
    scores = generator.normal(0.0, 2.0, (2, 3, heads, 5, 5))
    return Captured(jnp.asarray(features, jnp.float32), jnp.asarray(scores, jnp.float32))


OF_STUDENT, OF_TEACHER = random_capture(1), random_capture(2)
MASK_BT = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])


def normalized(x: np.ndarray) -> np.ndarray:
    return (x - np.mean(x)) / np.sqrt(np.var(x) + 1e-12)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def by_definition(layer: int, statistics: np.ndarray | None = None) -> dict[str, float]:
    """Returns the mean of each loss over real positions; `statistics` is [M, B, T, D]."""
    h_s, h_t, a_s, a_t = (
        np.asarray(x[layer], np.float64)
        for x in (
            OF_STUDENT.features_BTD,
            OF_TEACHER.features_BTD,
            OF_STUDENT.scores_BHTS,
            OF_TEACHER.scores_BHTS,
        )
    )
    found: dict[str, list[float]] = {name: [] for name in transfer.LOSSES}
    for b, t in np.argwhere(MASK_BT):
        s, z = h_s[b, t], h_t[b, t]
        compared = [z] if statistics is None else list(statistics[:, b, t])
        found["feature_map"].append(np.mean((normalized(z) - normalized(s)) ** 2))
        found["mean"].append(np.mean([(np.mean(z) - np.mean(s)) ** 2 for z in compared]))
        found["variance"].append(np.mean([abs(np.var(z) - np.var(s)) for z in compared]))
        divergences = []
        for h in range(a_s.shape[1]):
            p, q = softmax(a_t[b, h, t]), softmax(a_s[b, h, t])
            divergences.append(np.sum(p * np.log(p / q)))
        found["attention"].append(np.mean(divergences))
    return {name: float(np.mean(values)) for name, values in found.items()}


def layer_totals(
    student: Captured, teacher: Captured, statistics: transfer.Statistics | None = None
) -> dict[str, jax.Array]:
    """Returns the losses of every layer, [N] each."""
    every = jax.vmap(transfer.layer_totals, in_axes=(0, 0, None, None))
    return every(student, teacher, jnp.asarray(MASK_BT), statistics)


def test_each_loss_follows_its_definition() -> None:
    totals = layer_totals(OF_STUDENT, OF_TEACHER)
    for layer in range(2):
        for name, wanted in by_definition(layer).items():
            assert float(totals[name][layer]) / 9 == pytest.approx(wanted, rel=1e-5), name
    assert set(totals) == set(transfer.LOSSES)


def test_equal_networks_have_no_loss() -> None:
    """The attention loss is a divergence: a cross-entropy would leave the teacher's entropy."""
    totals = layer_totals(OF_TEACHER, OF_TEACHER)
    for total_N in totals.values():
        np.testing.assert_allclose(total_N, 0.0, atol=1e-5)


def test_the_divergence_is_taken_from_the_teachers_side() -> None:
    sure = jnp.log(jnp.array([0.98, 0.01, 0.01])).reshape(1, 1, 1, 3)
    even = jnp.zeros((1, 1, 1, 3))
    found = transfer.attention_divergence(scores_s=even, scores_t=sure)
    assert float(found[0, 0]) == pytest.approx(np.log(3) - 0.1119, abs=1e-3)


def test_statistics_may_be_compared_with_those_of_every_teacher_layer() -> None:
    generator = np.random.default_rng(5)
    statistics = generator.normal(0.5, 2.0, (4, 3, 5, 4))
    compared = transfer.statistics_of(jnp.asarray(statistics, jnp.float32))
    totals = layer_totals(OF_STUDENT, OF_TEACHER, compared)
    for layer in range(2):
        for name, wanted in by_definition(layer, statistics).items():
            assert float(totals[name][layer]) / 9 == pytest.approx(wanted, rel=1e-5), name


def test_rows_of_padding_do_not_count() -> None:
    """Neither in the totals nor in the gradient."""

    def loss(student: Captured, teacher: Captured) -> jax.Array:
        totals = layer_totals(student, teacher)
        return sum(jnp.sum(total_N) for total_N in totals.values())

    def spoil(captured: Captured) -> Captured:
        padding_BT = jnp.asarray(MASK_BT == 0)
        return Captured(
            jnp.where(padding_BT[None, ..., None], 77.0, captured.features_BTD),
            jnp.where(padding_BT[None, :, None, :, None], 9.0, captured.scores_BHTS),
        )

    clean = jax.value_and_grad(loss)(OF_STUDENT, OF_TEACHER)
    spoilt = jax.value_and_grad(loss)(spoil(OF_STUDENT), spoil(OF_TEACHER))
    tiny.assert_close(spoilt, clean, 1e-6)
    assert not np.asarray(clean[1].features_BTD)[:, MASK_BT == 0].any()


def test_no_gradient_reaches_the_teacher() -> None:
    def loss(teacher: Captured, features_MBTD: jax.Array) -> jax.Array:
        totals = layer_totals(OF_STUDENT, teacher, transfer.statistics_of(features_MBTD))
        return sum(jnp.sum(total_N) for total_N in totals.values())

    found = jax.grad(loss, argnums=(0, 1))(OF_TEACHER, OF_TEACHER.features_BTD)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found))


# The objective of two networks


@pytest.fixture(scope="module")
def student() -> dict[str, Any]:
    return tiny.student_params()


@pytest.fixture(scope="module")
def teacher() -> dict[str, Any]:
    return tiny.teacher_params()


def objective(layer: int | None, **changes: Any) -> Objective:
    """Returns the objective of one layer, or of all."""
    settings = dataclasses.replace(PUBLISHED, **changes)
    if layer is None:
        return transfer.joint_objective(tiny.STUDENT, tiny.TEACHER, settings)
    return transfer.objective(tiny.STUDENT, tiny.TEACHER, settings, layer)


@functools.cache
def compiled(layer: int | None, lower_layer_lr_scale: float) -> Callable[..., Sums]:
    """Returns the compiled gradient of the stage-specialised objective."""
    measure = objective(layer, lower_layer_lr_scale=lower_layer_lr_scale)
    return tiny.jit(functools.partial(gradient, measure))


@functools.cache
def compiled_measure(layer: int | None, **changes: Any) -> Callable[..., Measured]:
    return tiny.jit(objective(layer, **changes))


def terms(measured: Measured) -> dict[str, tuple[float, float]]:
    return {n: (float(t.mean.value()), float(t.factor)) for n, t in measured.terms.items()}


def test_factors_are_the_published_ones(student: Any, teacher: Any) -> None:
    found = terms(compiled_measure(None)(student, teacher, BATCH, KEY))
    assert {name: factor for name, (_, factor) in found.items()} == {
        "feature_map": 100.0,
        "mean": 5000.0,
        "variance": 5.0,
        "attention": 1.0,
    }


def test_several_layers_add_up_and_are_reported_one_by_one(student: Any, teacher: Any) -> None:
    measured = compiled_measure(None)(student, teacher, BATCH, KEY)
    single = [compiled(n, 0.1)(student, teacher, BATCH, KEY).metrics for n in EVERY]
    for name, (value, _) in terms(measured).items():
        alone = [float(metrics[name].value()) for metrics in single]
        assert value == pytest.approx(sum(alone), rel=1e-5)
        for layer in EVERY:
            figure = float(measured.metrics[f"{name}/layer_{layer:02d}"].value())
            assert figure == pytest.approx(alone[layer], rel=1e-5)
    assert len(measured.metrics) == 4 * tiny.LAYERS


def test_the_authors_variants(student: Any, teacher: Any) -> None:
    """Factors divided by the number of layers; statistics of embeddings and of every layer."""
    run = compiled_measure(1, average_over_layers=True, statistics_of_all_teacher_layers=True)
    found = terms(run(student, teacher, BATCH, KEY))
    factors = {"feature_map": 100.0, "mean": 5000.0, "variance": 5.0, "attention": 1.0}
    for name, factor in factors.items():
        assert found[name][1] == pytest.approx(factor / tiny.LAYERS)
    plain = compiled(1, 0.1)(student, teacher, BATCH, KEY).metrics
    for name in ("feature_map", "attention"):
        assert found[name][0] == pytest.approx(float(plain[name].value()), rel=1e-5)

    @tiny.jit
    def features(student: Any, teacher: Any) -> tuple[jax.Array, jax.Array]:
        taught = encoder.encode(tiny.STUDENT, student, BATCH, layers=2)
        wanted = encoder.encode(tiny.TEACHER, teacher, BATCH, capture=EVERY)
        every = jnp.concatenate([wanted.embedded_BTD[None], wanted.shown.features_BTD])
        return taught.hidden_BTD, every

    real_BT = np.asarray(BATCH["input_mask"]) == 1
    h_s, h_t = (np.asarray(x, np.float64) for x in features(student, teacher))
    h_s, h_t = h_s[real_BT], h_t[:, real_BT]
    assert len(h_t) == tiny.LAYERS + 1
    mean = np.mean((h_t.mean(-1) - h_s.mean(-1)) ** 2)
    variance = np.mean(np.abs(h_t.var(-1) - h_s.var(-1)))
    assert found["mean"][0] == pytest.approx(mean, rel=1e-4)
    assert found["variance"][0] == pytest.approx(variance, rel=1e-4)


def test_tokens_of_padding_change_neither_loss_nor_gradient(student: Any, teacher: Any) -> None:
    real_BT = BATCH["input_mask"] == 1
    spoilt = BATCH | {
        "input_ids": jnp.where(real_BT, BATCH["input_ids"], 41),
        "segment_ids": jnp.where(real_BT, BATCH["segment_ids"], 1),
    }
    run = compiled(1, 0.1)
    expected = run(student, teacher, BATCH, KEY)
    actual = run(student, teacher, spoilt, KEY)
    tiny.assert_close(actual, expected)


# One program a layer, against one program with gates


def gated(params: Any, teacher: Any, gates_N: jax.Array) -> Measured:
    """The authors' formulation: all layers' losses, of which a gate lets one through."""
    capture = [
        encoder.encode(network, p, BATCH, capture=EVERY).shown
        for network, p in ((tiny.STUDENT, params), (tiny.TEACHER, teacher))
    ]
    every = jax.vmap(transfer.layer_totals, in_axes=(0, 0, None))
    totals = every(*capture, BATCH["input_mask"])
    totals = {name: total_N * gates_N for name, total_N in totals.items()}
    factors = {"feature_map": 100.0, "mean": 5000.0, "variance": 5.0, "attention": 1.0}
    return transfer.as_measured(totals, BATCH["input_mask"], factors)


@pytest.fixture(scope="module")
def gated_gradient() -> Callable[..., Sums]:
    def run(params: Any, teacher: Any, gates_N: jax.Array) -> Sums:
        def measure(params: Any, teacher: Any, batch: Any, key: Any) -> Measured:
            return gated(params, teacher, gates_N)

        return gradient(measure, params, teacher, BATCH, KEY)

    return tiny.jit(run)


T = 10
STEPS = {0: 5, 1: 15, 2: 25}
"""A step in the middle of each layer's phase."""


@functools.cache
def update(lower_layer_lr_scale: float) -> Callable[..., Any]:
    optimizer = build(
        PUBLISHED.optimizer,
        schedules.base_rate(PUBLISHED.optimizer, T * tiny.LAYERS),
        schedules.progressive(T * tiny.LAYERS, tiny.LAYERS, lower_layer_lr_scale),
        restart_every=T,
    )

    def run(gradients: Any, opt_state: Any, params: Any, step: jax.Array) -> Any:
        norm = gradient_norm(gradients, EVERYTHING)
        updates, opt_state = optimizer.transformation.update(
            gradients, opt_state, params, step=step, gradient_norm=norm
        )
        return updates, opt_state, norm

    return tiny.jit(run)


@pytest.fixture(scope="module")
def moments(student: Any) -> optax.OptState:
    """Moments well above 0: from none, LAMB takes the sign of rounding errors."""
    generator = np.random.default_rng(3)
    settings = PUBLISHED.optimizer
    optimizer = build(settings, optax.constant_schedule(1.0), schedules.uniform(tiny.LAYERS))

    def draw(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(generator.uniform(0.5, 1.0, leaf.shape), jnp.float32)

    return jax.tree.map(draw, optimizer.init(student))


def without_frozen(sums: Sums, layer: int) -> Sums:
    """Returns `sums` with no gradient for what lies below `layer`."""
    blocks = jax.tree.map(lambda g: g.at[:layer].set(0.0), sums.gradient["blocks"])
    embeddings = jax.tree.map(jnp.zeros_like, sums.gradient["embeddings"])
    return sums._replace(gradient=sums.gradient | {"blocks": blocks, "embeddings": embeddings})


@pytest.mark.parametrize("lower_layer_lr_scale", [0.1, 0.0])
@pytest.mark.parametrize("layer", EVERY)
def test_a_phase_equals_the_gated_formulation(
    layer: int,
    lower_layer_lr_scale: float,
    student: Any,
    teacher: Any,
    moments: optax.OptState,
    gated_gradient: Callable[..., Sums],
) -> None:
    ours = compiled(layer, lower_layer_lr_scale)(student, teacher, BATCH, KEY)
    expected = gated_gradient(student, teacher, jnp.eye(tiny.LAYERS)[layer])
    if lower_layer_lr_scale == 0.0:
        expected = without_frozen(expected, layer)
    assert float(ours.loss) == pytest.approx(float(expected.loss), rel=1e-5)
    tiny.assert_close(ours.gradient, expected.gradient, 2e-5)
    step = jnp.int32(STEPS[layer])
    updated, wanted = (
        update(lower_layer_lr_scale)(sums.gradient, moments, student, step)
        for sums in (ours, expected)
    )
    tiny.assert_close(updated, wanted)
    # The gradient is clipped, so what counts in its norm matters for the update.
    assert float(updated[2]) > PUBLISHED.optimizer.clip_norm
    for leaf in jax.tree.leaves(updated[0]["blocks"]):
        moved = np.abs(leaf).reshape(tiny.LAYERS, -1).max(axis=1) > 0
        assert moved.tolist() == [
            n == layer or (n < layer and lower_layer_lr_scale > 0) for n in EVERY
        ]


@pytest.mark.parametrize(("remat", "unroll"), [("none", 1), ("full", 2)])
def test_all_layers_at_once_equal_those_kept_and_compared_at_the_end(
    remat: Any,
    unroll: int,
    student: Any,
    teacher: Any,
    gated_gradient: Callable[..., Sums],
) -> None:
    learner = dataclasses.replace(tiny.STUDENT, remat=remat)
    watched = dataclasses.replace(tiny.TEACHER, unroll=unroll)
    measure = transfer.joint_objective(learner, watched, PUBLISHED)
    ours = tiny.jit(functools.partial(gradient, measure))(student, teacher, BATCH, KEY)
    expected = gated_gradient(student, teacher, jnp.ones(tiny.LAYERS))
    assert float(ours.loss) == pytest.approx(float(expected.loss), rel=1e-5)
    tiny.assert_close(ours.gradient, expected.gradient, 2e-5)


def test_all_layers_may_be_compared_with_the_statistics_of_all(student: Any, teacher: Any) -> None:
    changes = {"statistics_of_all_teacher_layers": True}
    together = terms(compiled_measure(None, **changes)(student, teacher, BATCH, KEY))
    single = [terms(compiled_measure(n, **changes)(student, teacher, BATCH, KEY)) for n in EVERY]
    for name, (value, _) in together.items():
        assert value == pytest.approx(sum(one[name][0] for one in single), rel=1e-5)


@pytest.mark.parametrize("lower_layer_lr_scale", [0.1, 0.0])
@pytest.mark.parametrize("layer", EVERY[:-1])
def test_blocks_above_are_absent(
    layer: int, lower_layer_lr_scale: float, student: Any, teacher: Any
) -> None:
    def break_above(params: Any) -> Any:
        return params | {
            "blocks": jax.tree.map(lambda p: p.at[layer + 1 :].set(jnp.nan), params["blocks"])
        }

    run = compiled(layer, lower_layer_lr_scale)
    whole = run(student, teacher, BATCH, KEY)
    broken = run(break_above(student), break_above(teacher), BATCH, KEY)
    jax.tree.map(np.testing.assert_array_equal, broken, whole)
    for leaf in jax.tree.leaves(whole.gradient["blocks"]):
        np.testing.assert_array_equal(leaf[layer + 1 :], 0.0)


def flops_of_step(measure: Objective, student: Any, teacher: Any) -> int:
    optimizer = build(
        PUBLISHED.optimizer, lambda step: jnp.float32(1.0), schedules.uniform(tiny.LAYERS)
    )
    state = State(student, optimizer.init(student), jnp.int32(0))
    program = jax.make_jaxpr(make_step(measure, optimizer))(state, teacher, BATCH, KEY)
    return programs.matrix_flops(program)


def forward(network: Any, layers: int) -> int:
    return tiny.ROWS * sizes.forward_flops(network.config, tiny.LENGTH, layers=layers)


@pytest.mark.parametrize("layer", EVERY)
def test_a_step_multiplies_what_its_blocks_need_and_no_more(
    layer: int, student: Any, teacher: Any
) -> None:
    depth = layer + 1
    # A backward pass has two products for each of the forward pass.
    expected = forward(tiny.TEACHER, depth) + 3 * forward(tiny.STUDENT, depth)
    assert flops_of_step(objective(layer), student, teacher) == expected


@pytest.mark.parametrize("layer", EVERY)
def test_nothing_below_a_frozen_phase_has_a_backward_pass(
    layer: int, student: Any, teacher: Any
) -> None:
    depth = layer + 1
    one_block = forward(tiny.STUDENT, 1) - forward(tiny.STUDENT, 0)
    expected = forward(tiny.TEACHER, depth) + forward(tiny.STUDENT, depth) + 2 * one_block
    assert flops_of_step(objective(layer, lower_layer_lr_scale=0.0), student, teacher) == expected


def test_all_layers_at_once_run_both_networks_once(student: Any, teacher: Any) -> None:
    words = schema.Distill()
    alone = flops_of_step(distill.objective(tiny.STUDENT, tiny.TEACHER, words), student, teacher)
    depth = tiny.LAYERS
    expected = forward(tiny.TEACHER, depth) + 3 * forward(tiny.STUDENT, depth)
    assert flops_of_step(objective(None), student, teacher) == expected
    auxiliary = distill.auxiliary_objective(tiny.STUDENT, tiny.TEACHER, words, PUBLISHED)
    assert flops_of_step(auxiliary, student, teacher) == alone
