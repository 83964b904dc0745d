"""LAMB and AdamW: equal to optax where optax means the same, and to the published rule elsewhere.

Shapes: N layers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.optimizer import masks, schedules
from mobilebert_jax.optimizer.build import Optimizer, build
from mobilebert_jax.optimizer.gradient_norm import gradient_norm
from mobilebert_jax.optimizer.schedules import Multiplier
from mobilebert_jax.optimizer.trainable import EVERYTHING
from tests import tiny

Tree = dict[str, Any]

LAMB = schema.Optimizer(warmup_steps=0, decay="constant", peak_learning_rate=0.01, clip_norm=2.0)
N = 3
SHAPES = {
    "blocks": {
        "output": {"kernel": (N, 4, 5), "bias": (N, 5)},
        "output_norm": {"scale": (N, 5), "shift": (N, 5)},
    },
    "embeddings": {"word": (7, 4), "norm": {"scale": (5,), "shift": (5,)}},
    "masked_lm": {"extra": (7, 2), "bias": (7,)},
}


def draw(shapes: Tree, seed: int, size: float = 1.0) -> Tree:
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(generator.normal(0.0, size, shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def gradients(step: int, shapes: Tree = SHAPES) -> Tree:
    """Returns gradients of which those of even steps are clipped and those of odd ones are not."""
    return draw(shapes, 100 + step, 1.0 if step % 2 == 0 else 0.01)


def updater(optimizer: Optimizer) -> Any:
    """Returns `(gradients, opt_state, params, step) -> (updates, opt_state)`, compiled."""

    def update(gradients: Tree, opt_state: Any, params: Tree, step: jax.Array) -> Any:
        norm = gradient_norm(gradients, EVERYTHING)
        return optimizer.transformation.update(
            gradients, opt_state, params, step=step, gradient_norm=norm
        )

    return tiny.jit(update)


def run(
    optimizer: Optimizer, params: Tree, steps: int, shapes: Tree = SHAPES, first: int = 0
) -> list[tuple[Tree, Any]]:
    """Returns parameters and optimiser state after each step."""
    update = updater(optimizer)
    opt_state, found = optimizer.init(params), []
    for step in range(first, first + steps):
        updates, opt_state = update(gradients(step, shapes), opt_state, params, step)
        params = optax.apply_updates(params, updates)
        found.append((params, opt_state))
    return found


# Against optax


@pytest.mark.parametrize("kind", ["lamb", "adamw"])
def test_equals_optax_where_all_is_decayed_and_nothing_stacked(kind: str) -> None:
    shapes = {
        "blocks": {"output": {"kernel": (1, 4, 5)}},
        "embeddings": {"word": (7, 4), "projection": {"kernel": (4, 5)}},
    }
    settings = dataclasses.replace(
        LAMB, name=kind, bias_correction=True, warmup_steps=2, decay="linear"
    )
    schedule = schedules.base_rate(settings, 8)
    rule = {"lamb": optax.lamb, "adamw": optax.adamw}[kind]
    reference = optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        rule(
            schedule,
            b1=settings.beta1,
            b2=settings.beta2,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        ),
    )
    params = start = draw(shapes, 0)
    state = reference.init(params)
    for step, (ours, _) in enumerate(
        run(build(settings, schedule, schedules.uniform(1)), start, 8, shapes)
    ):
        updates, state = reference.update(gradients(step, shapes), state, params)
        params = optax.apply_updates(params, updates)
        tiny.assert_close(ours, params, 1e-6)
    assert np.abs(params["embeddings"]["word"] - start["embeddings"]["word"]).max() > 1e-2


# Against the published rule, one tensor a layer and no bias correction

DECAYED = {"kernel", "word", "extra"}


def unstacked(tree: Tree) -> dict[tuple[str, int], np.ndarray]:
    """Returns one array per parameter and layer."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        layers = np.asarray(leaf, np.float64)
        for layer, values in enumerate(layers if name.startswith("blocks/") else layers[None]):
            flat[name, layer] = values
    return flat


def published_lamb(weights: dict, steps: int, blocks: list[float], others: float) -> dict:
    """Returns the parameters after `steps`, computed tensor by tensor in float64."""
    first, second = ({k: np.zeros_like(w) for k, w in weights.items()} for _ in range(2))
    for step in range(steps):
        gradient = unstacked(gradients(step))
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        for key, w in weights.items():
            g = gradient[key] * min(1.0, LAMB.clip_norm / norm)
            m = first[key] = 0.9 * first[key] + 0.1 * g
            v = second[key] = 0.999 * second[key] + 0.001 * g**2
            u, ratio = m / (np.sqrt(v) + 1e-6), 1.0
            if key[0].rsplit("/", 1)[-1] in DECAYED:
                u = u + 0.01 * w
                ratio = np.linalg.norm(w) / np.linalg.norm(u)
            mult = blocks[key[1]] if key[0].startswith("blocks/") else others
            weights = weights | {key: w - mult * LAMB.peak_learning_rate * ratio * u}
    return weights


def test_equals_the_published_lamb_layer_by_layer() -> None:
    params = draw(SHAPES, 0)
    # Layers of unequal size would share a trust ratio if one norm were taken over the stack.
    kernel = params["blocks"]["output"]["kernel"] * jnp.array([0.1, 1.0, 10.0])[:, None, None]
    params["blocks"]["output"]["kernel"] = kernel
    blocks, others = [0.3, 1.0, 3.0], 0.5
    optimizer = build(
        LAMB,
        schedules.base_rate(LAMB, 10),
        lambda step: Multiplier(jnp.array(blocks), jnp.float32(others)),
    )
    ours = unstacked(run(optimizer, params, 5)[-1][0])
    expected = published_lamb(unstacked(params), 5, blocks, others)
    assert ours.keys() == expected.keys()
    for key, wanted in expected.items():
        np.testing.assert_allclose(ours[key], wanted, rtol=1e-5, atol=1e-6, err_msg=str(key))


def test_a_layer_of_zeros_still_moves() -> None:
    """The trust ratio of a tensor without length is 1, not 0."""
    params = draw(SHAPES, 0)
    params["blocks"]["output"]["kernel"] = params["blocks"]["output"]["kernel"].at[1].set(0.0)
    optimizer = build(LAMB, schedules.base_rate(LAMB, 10), schedules.uniform(N))
    moved = run(optimizer, params, 1)[0][0]["blocks"]["output"]["kernel"][1]
    np.testing.assert_allclose(np.abs(moved), 0.01 * 0.1 / np.sqrt(0.001), rtol=0.01)


def test_decay_alone_shrinks_what_is_decayed_and_nothing_else() -> None:
    settings = dataclasses.replace(LAMB, name="adamw", weight_decay=0.5)
    params = draw(SHAPES, 0)
    optimizer = build(settings, schedules.base_rate(settings, 10), schedules.uniform(N))
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = updater(optimizer)(zero, optimizer.init(params), params, 0)
    weight = unstacked(params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        factor = -0.01 * 0.5 if path[-1].key in DECAYED else 0.0
        for layer, values in enumerate(update if path[0].key == "blocks" else update[None]):
            np.testing.assert_allclose(values, factor * weight[name, layer], rtol=1e-5)


# Clipping


@pytest.mark.parametrize(("step", "clipped"), [(0, True), (1, False)])
def test_gradients_are_clipped_to_the_norm_over_all_parameters(step: int, clipped: bool) -> None:
    params = draw(SHAPES, 0)
    optimizer = build(LAMB, schedules.base_rate(LAMB, 10), schedules.uniform(N))
    norm = float(np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradients(step)))))
    assert (norm > LAMB.clip_norm) == clipped
    ((_, opt_state),) = run(optimizer, params, 1, first=step)
    first, _ = tiny.moments(opt_state)
    scale = LAMB.clip_norm / norm if clipped else 1.0
    tiny.assert_close(first, jax.tree.map(lambda g: 0.1 * scale * g, gradients(step)), 1e-6)


# The progressive schedule: frozen parameters, moments that restart

T = 4


def progressive(
    kind: str, *, bias_correction: bool = False, lower_layer_lr_scale: float = 0.1
) -> Optimizer:
    settings = dataclasses.replace(LAMB, name=kind, bias_correction=bias_correction)
    return build(
        settings,
        schedules.base_rate(settings, N * T),
        schedules.progressive(N * T, N, lower_layer_lr_scale),
        restart_every=T,
    )


@pytest.mark.parametrize("lower_layer_lr_scale", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["lamb", "adamw"])
def test_what_is_frozen_neither_moves_nor_remembers(kind: str, lower_layer_lr_scale: float) -> None:
    before = draw(SHAPES, 0)
    optimizer = progressive(kind, lower_layer_lr_scale=lower_layer_lr_scale)
    for step, (after, opt_state) in enumerate(run(optimizer, before, N * T)):
        moments = tiny.moments(opt_state)
        multiplier = np.asarray(optimizer.multipliers(jnp.int32(step)).blocks_N)
        for new, old, *both in zip(
            *(jax.tree.leaves(tree["blocks"]) for tree in (after, before, *moments)),
            strict=True,
        ):
            for layer in range(N):
                moving = multiplier[layer] != 0
                assert (np.abs(new[layer] - old[layer]).max() > 0) == moving
                assert all((np.abs(moment[layer]).max() > 0) == moving for moment in both)
        for part in ("embeddings", "masked_lm"):
            jax.tree.map(np.testing.assert_array_equal, after[part], before[part])
            for leaf in jax.tree.leaves([moment[part] for moment in moments]):
                np.testing.assert_array_equal(leaf, 0.0)
        rate = float(optimizer.learning_rate(jnp.int32(step)))
        assert rate == pytest.approx(0.01 * multiplier.max(), rel=1e-6)
        before = after


def test_moments_restart_at_the_border_of_a_phase() -> None:
    """After the first step of a phase they are those of that step's gradient alone."""
    found = run(progressive("lamb"), draw(SHAPES, 0), T + 2)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(tiny.moments(found[T][1])))
    first, second = tiny.moments(found[T + 1][1])
    gradient = gradients(T + 1)["blocks"]["output"]["kernel"]
    np.testing.assert_allclose(first["blocks"]["output"]["kernel"][:2], 0.1 * gradient[:2], 1e-5)
    np.testing.assert_allclose(
        second["blocks"]["output"]["kernel"][:2], 0.001 * gradient[:2] ** 2, 1e-5
    )


@pytest.mark.parametrize("step", [1, T + 1, 2 * T + 1])
def test_bias_correction_counts_from_the_restart(step: int) -> None:
    """The corrected first step of a phase is the sign of the gradient, whatever came before."""
    optimizer = progressive("adamw", bias_correction=True)
    params, opt_state = run(optimizer, draw(SHAPES, 0), step)[-1]
    updates, _ = updater(optimizer)(gradients(step), opt_state, params, step)
    layer = (step - 1) // T
    rate = float(optimizer.learning_rate(jnp.int32(step)))
    bias = updates["blocks"]["output"]["bias"][layer]
    gradient = gradients(step)["blocks"]["output"]["bias"][layer]
    np.testing.assert_allclose(bias, -rate * np.sign(gradient), rtol=2e-3)


def test_bias_correction_counts_all_steps_without_restarts() -> None:
    settings = dataclasses.replace(LAMB, name="adamw", bias_correction=True, weight_decay=0.0)
    optimizer = build(settings, schedules.base_rate(settings, 10), schedules.uniform(N))
    params = draw(SHAPES, 0)
    constant = jax.tree.map(jnp.ones_like, params)
    opt_state, update = optimizer.init(params), updater(optimizer)
    for step in range(5):
        updates, opt_state = update(constant, opt_state, params, step)
        # A constant gradient has a corrected first moment of itself at every step.
        for leaf in jax.tree.leaves(updates):
            np.testing.assert_allclose(leaf, -settings.peak_learning_rate, rtol=1e-3)


# Which parameters are decayed

BLOCK_KERNELS = {
    "student": ("input", "query_key", "attention/query", "attention/key", "attention/value"),
    "teacher": ("input", "attention/query", "attention/key", "attention/value"),
}
AROUND = {
    "embeddings/word",
    "embeddings/position",
    "embeddings/type",
    "embeddings/projection/kernel",
    "masked_lm/transform/kernel",
    "masked_lm/extra",
    "next_sentence/dense/kernel",
}


def decayed_by_hand(name: str) -> set[str]:
    kernels = (
        *BLOCK_KERNELS[name],
        "attention_output",
        "feedforward_0_in",
        "feedforward_0_out",
        "output",
    )
    pooler = {"pooler/dense/kernel"} if name == "teacher" else set()
    return AROUND | pooler | {f"blocks/{kernel}/kernel" for kernel in kernels}


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_the_table_lists_every_parameter_and_what_is_decayed(name: str) -> None:
    params = {"student": tiny.student_params, "teacher": tiny.teacher_params}[name]()
    columns = [list(column.cells) for column in masks.table(params).columns]
    names, shapes, layers, decayed = columns
    leaves = jax.tree_util.tree_leaves_with_path(params)
    assert names == [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]
    found = {n for n, answer in zip(names, decayed, strict=True) if answer == "yes"}
    assert found == decayed_by_hand(name)
    assert set(decayed) == {"yes", "no"}
    others = {n.rsplit("/", 1)[-1] for n in set(names) - found}
    assert others == {"bias", "scale", "shift"}
    for (path, leaf), shape, depth in zip(leaves, shapes, layers, strict=True):
        stacked = path[0].key == "blocks"
        assert depth == (str(tiny.LAYERS) if stacked else "")
        assert shape == str(list(leaf.shape[1:] if stacked else leaf.shape))


def test_the_rule_follows_the_table() -> None:
    params = tiny.student_params()
    decided = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if masks.decays(path)
    }
    assert decided == decayed_by_hand("student")
