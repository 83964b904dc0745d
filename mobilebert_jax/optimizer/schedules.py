"""Learning rates over time: warm-up with linear decay, and the progressive schedule of transfer.

A rate is the product of a base, one number a step, and a multiplier, one number a step for each
block and one for everything outside the blocks. Both are pure functions of the step, so that a
resume needs nothing but the step number, and both work with any update rule.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobilebert_jax.config import schema
from mobilebert_jax.config.stage_settings import phase_steps

PROGRESSIVE_PEAK = 3.0
"""The progressive schedule trains its active layer at three times the base rate."""


class Multiplier(NamedTuple):
    """Factors on the base rate: one for each block [N], one for all other parameters []."""

    blocks_N: jax.Array
    others: jax.Array


Multipliers = Callable[[jax.Array], Multiplier]


def base_rate(config: schema.Optimizer, steps: int) -> optax.Schedule:
    """Returns step -> rate: linear warm-up to the peak, then linear decay or constant.

    Linear decay reaches `final_learning_rate_ratio * peak_learning_rate` at step `steps`, counted
    from step 0 as BERT does.
    """
    peak, warmup = config.peak_learning_rate, min(config.warmup_steps, steps)
    if config.decay == "constant":
        after = optax.constant_schedule(peak)
    else:
        decay = optax.linear_schedule(peak, peak * config.final_learning_rate_ratio, steps)
        after = lambda step: decay(step + warmup)  # noqa: E731
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def uniform(layers: int, *, others: float = 1.0) -> Multipliers:
    """Every block at the full rate, and everything outside the blocks at `others` of it."""
    return lambda step: Multiplier(jnp.ones(layers), jnp.float32(others))


def active_layer(step: int, steps: int, layers: int) -> int:
    """Returns the layer l that is taught at `step`: l T < step <= (l + 1) T.

    Step 0, like every multiple of T, has rate 0 and changes nothing; it is counted to layer 0.
    """
    return max(step - 1, 0) // phase_steps(steps, layers)


def progressive(steps: int, layers: int, lower_layer_lr_scale: float) -> Multipliers:
    """One layer at a time from the bottom; nothing outside the blocks moves.

    In each phase of T = steps // layers the rate rises within a tenth of it and then falls by a
    tenth: bg(u) = min(0.9 + 0.1 sqrt(1 - u), 10 u), u = (t mod T) / T. The multiplier is
    3 bg m with m = 1 for the active layer, `lower_layer_lr_scale` for those below, 0 for those
    above.

    Source: paper section 3.5; the authors' optimiser.
    """
    length = phase_steps(steps, layers)
    first_N = length * jnp.arange(layers)

    def multiplier(step: jax.Array) -> Multiplier:
        u = (step % length) / length
        shape = PROGRESSIVE_PEAK * jnp.minimum(0.9 + 0.1 * jnp.sqrt(1.0 - u), 10.0 * u)
        reached_N = step > first_N
        active_N = reached_N & (step <= first_N + length)
        m_N = jnp.where(active_N, 1.0, jnp.where(reached_N, lower_layer_lr_scale, 0.0))
        return Multiplier(shape * m_N, jnp.float32(0.0))

    return multiplier
