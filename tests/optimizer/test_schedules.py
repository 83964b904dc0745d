"""Learning rates: the authors' progressive schedule, and BERT's warm-up with linear decay."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilebert_jax.config import schema
from mobilebert_jax.config.stage_settings import phase_steps
from mobilebert_jax.optimizer import schedules

PUBLISHED_STEPS, PUBLISHED_LAYERS = 240_000, 24

# Multipliers of layers 0, 1, 2 that the authors' code gives, T = 10,000 steps a layer.
GOLDEN = {
    0: (0.0, 0.0, 0.0),
    1: (0.003, 0.0, 0.0),
    500: (1.5, 0.0, 0.0),
    995: (2.984684, 0.0, 0.0),
    1000: (2.984605, 0.0, 0.0),
    5000: (2.912132, 0.0, 0.0),
    9999: (2.703, 0.0, 0.0),
    10_000: (0.0, 0.0, 0.0),
    10_001: (0.0003, 0.003, 0.0),
    10_500: (0.15, 1.5, 0.0),
    15_000: (0.291213, 2.912132, 0.0),
    20_001: (0.0003, 0.0003, 0.003),
    21_000: (0.298460, 0.298460, 2.984605),
}


def multiplier(step: int, steps: int, layers: int, lower_layer_lr_scale: float = 0.1) -> np.ndarray:
    """Returns the multipliers of all blocks; what is outside of them must not move."""
    found = schedules.progressive(steps, layers, lower_layer_lr_scale)(jnp.int32(step))
    assert float(found.others) == 0.0
    return np.asarray(found.blocks_N)


# Progressive transfer


@pytest.mark.parametrize("step", GOLDEN)
def test_multipliers_are_those_of_the_authors_code(step: int) -> None:
    found = multiplier(step, PUBLISHED_STEPS, PUBLISHED_LAYERS)
    np.testing.assert_allclose(found[:3], GOLDEN[step], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[3:], 0.0)


def test_the_last_layers_turn_looks_like_the_first() -> None:
    found = multiplier(230_995, PUBLISHED_STEPS, PUBLISHED_LAYERS)
    np.testing.assert_allclose(found, [0.2984684] * 23 + [2.984684], rtol=0, atol=1e-6)


def test_the_published_peak_rates() -> None:
    base = schedules.base_rate(schema.Transfer().optimizer, PUBLISHED_STEPS)(10_995)
    found = base * multiplier(10_995, PUBLISHED_STEPS, PUBLISHED_LAYERS)
    assert found[1] == pytest.approx(4.477e-3, rel=1e-4)
    assert found[0] == pytest.approx(4.477e-4, rel=1e-4)


@settings(max_examples=60)
@given(
    layers=st.sampled_from([1, 2, 5, 24]),
    length=st.integers(2, 500),
    surplus=st.integers(0, 4),
    lower_layer_lr_scale=st.sampled_from([0.0, 0.1, 1.0]),
    data=st.data(),
)
def test_the_schedule_for_any_numbers(
    layers: int, length: int, surplus: int, lower_layer_lr_scale: float, data: st.DataObject
) -> None:
    steps = layers * length + min(surplus, layers - 1)
    assert phase_steps(steps, layers) == length
    step = data.draw(st.integers(0, layers * length), label="step")
    found = multiplier(step, steps, layers, lower_layer_lr_scale)
    active = schedules.active_layer(step, steps, layers)
    u = step % length / length
    shape = 3.0 * min(0.9 + 0.1 * (1.0 - u) ** 0.5, 10.0 * u)
    assert found[active] == pytest.approx(shape, abs=2e-6)
    np.testing.assert_allclose(found[:active], lower_layer_lr_scale * shape, atol=2e-6)
    np.testing.assert_array_equal(found[active + 1 :], 0.0)
    assert (found[active] == 0.0) == (step % length == 0)
    assert found.max() <= 3.0


@given(layers=st.integers(1, 24), length=st.integers(2, 50), surplus=st.integers(0, 23))
def test_every_layer_is_active_for_the_same_number_of_steps(
    layers: int, length: int, surplus: int
) -> None:
    steps = layers * length + surplus % layers
    active = [schedules.active_layer(step, steps, layers) for step in range(1, layers * length + 1)]
    assert active == [layer for layer in range(layers) for _ in range(length)]
    assert schedules.active_layer(0, steps, layers) == 0


@pytest.mark.parametrize("others", [0.0, 1.0])
def test_uniform_multipliers(others: float) -> None:
    found = schedules.uniform(3, others=others)(jnp.int32(7))
    np.testing.assert_array_equal(found.blocks_N, [1.0, 1.0, 1.0])
    assert float(found.others) == others


# The base rate

BERT = schema.Optimizer(peak_learning_rate=1e-3, warmup_steps=100, final_learning_rate_ratio=1e-2)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 1e-5),
        (50, 5e-4),
        (99, 9.9e-4),
        # The decay counts from step 0, so that the rate drops when the warm-up ends.
        (100, 9.01e-4),
        (101, 9.0001e-4),
        (500, 5.05e-4),
        (999, 1.099e-5),
        (1000, 1e-5),
        (1500, 1e-5),
    ],
)
def test_warmup_and_linear_decay_follow_bert(step: int, rate: float) -> None:
    assert float(schedules.base_rate(BERT, 1000)(step)) == pytest.approx(rate, rel=1e-4, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"warmup_steps": 0}, {0: 1e-3, 500: 5.05e-4, 1000: 1e-5}),
        ({"decay": "constant"}, {0: 0.0, 50: 5e-4, 100: 1e-3, 1000: 1e-3}),
        ({"decay": "constant", "warmup_steps": 0}, {0: 1e-3, 1000: 1e-3}),
        # A warm-up that does not fit ends with the run.
        ({"warmup_steps": 4000}, {0: 0.0, 500: 5e-4, 999: 9.99e-4}),
    ],
)
def test_other_shapes_of_the_base_rate(
    changes: dict[str, object], expected: dict[int, float]
) -> None:
    schedule = schedules.base_rate(dataclasses.replace(BERT, **changes), 1000)
    for step, rate in expected.items():
        assert float(schedule(jnp.int32(step))) == pytest.approx(rate, rel=1e-4, abs=1e-12)
