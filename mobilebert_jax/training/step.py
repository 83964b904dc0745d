"""One training step, for any objective and any update rule.

k micro-batches give the gradient of one batch: the weights of all terms are those of the whole
batch, so the parts only have to be summed; dropout masks follow an example's place in the batch. A
step whose loss, gradient or update is not finite is not applied; it counts as a step and is
reported.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobilebert_jax.model.dropout import examples_of_batch
from mobilebert_jax.objective.loss_terms import Batch, Mean, Objective, Params
from mobilebert_jax.optimizer.build import Optimizer
from mobilebert_jax.optimizer.gradient_norm import SpikeState, gradient_norm
from mobilebert_jax.optimizer.trainable import EVERYTHING, Part
from mobilebert_jax.training.state import State

Metrics = dict[str, jax.Array]
Step = Callable[[State, Any, Batch, jax.Array], tuple[State, Metrics]]


class Sums(NamedTuple):
    """What parts of a batch contribute; adding the parts gives the whole."""

    gradient: Params
    loss: jax.Array
    metrics: dict[str, Mean]


def make_step(
    objective: Objective,
    optimizer: Optimizer,
    micro_batches: int = 1,
    gradient_shardings: Any = None,
    part: Part = EVERYTHING,
    gathered: Callable[[Params], Params] = lambda params: params,
) -> Step:
    """Returns `(state, teacher, batch, key) -> (state, metrics)`, pure, to be compiled.

    `part` is what the step changes, and outside of which the optimiser's multipliers are 0.

    `gradient_shardings` shards the gradient like the moments that it is added to, so that where
    these are cut finer than the parameters it is summed into pieces and never whole.

    `gathered` makes of the parameters what the objective reads, the same numbers in another layout
    or rounded to the type in which they are multiplied (`state.gathering`).
    """

    def step(state: State, teacher: Any, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        key = jax.random.fold_in(key, state.step)
        sums = gradient(objective, gathered(state.params), teacher, batch, key, micro_batches)
        gradients = sums.gradient
        if gradient_shardings is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, gradient_shardings)
        norm = gradient_norm(gradients, part)
        params, opt_state = part.of(state.params), part.of_state(state.opt_state)
        updates, new_opt_state = optimizer.transformation.update(
            part.of(gradients), opt_state, params, step=state.step, gradient_norm=norm, part=part
        )
        # A finite gradient is not enough: a learning rate may be too large for its update.
        finite = jnp.isfinite(sums.loss) & jnp.isfinite(norm)
        finite &= jnp.isfinite(optax.tree.norm(updates))
        new_params = optax.tree.where(finite, optax.apply_updates(params, updates), params)
        new_opt_state = optax.tree.where(finite, new_opt_state, opt_state)
        new_params = part.put(state.params, new_params)
        new_opt_state = part.put_state(state.opt_state, new_opt_state)
        metrics = {name: mean.value() for name, mean in sums.metrics.items()}
        metrics |= {
            "loss": sums.loss,
            "gradient_norm": norm,
            "learning_rate": optimizer.learning_rate(state.step),
            "nonfinite": (~finite).astype(jnp.float32),
        }
        if isinstance(new_opt_state, SpikeState):
            metrics["spike"] = new_opt_state.spike
        return State(new_params, new_opt_state, state.step + 1), metrics

    return step


def gradient(
    objective: Objective,
    params: Params,
    teacher: Any,
    batch: Batch,
    key: jax.Array,
    micro_batches: int = 1,
) -> Sums:
    """Returns gradient, loss and metrics of a whole batch, computed in `micro_batches` parts."""
    if micro_batches == 1:
        return _sums(objective, params, teacher, batch, key)
    # The weights depend on the batch alone, so the compiler drops everything else of this pass.
    terms = objective(params, teacher, batch, key).terms
    weights = {name: term.mean.weight for name, term in terms.items()}
    parts = {
        name: jnp.moveaxis(x.reshape(-1, micro_batches, *x.shape[1:]), 1, 0)
        for name, x in batch.items()
    }

    def accumulate(total: Sums, index: jax.Array) -> tuple[Sums, None]:
        rows = {name: x[index] for name, x in parts.items()}
        with examples_of_batch(index, micro_batches):
            part = _sums(objective, params, teacher, rows, key, weights)
        return jax.tree.map(jnp.add, total, part), None

    abstract = jax.eval_shape(lambda: _sums(objective, params, teacher, batch, key, weights))
    zero = optax.tree.zeros_like(abstract)
    return jax.lax.scan(accumulate, zero, jnp.arange(micro_batches))[0]


def _sums(
    objective: Objective,
    params: Params,
    teacher: Any,
    batch: Batch,
    key: jax.Array,
    weights: dict[str, jax.Array] | None = None,
) -> Sums:
    """Returns the contributions of `batch`, divided by its own weights or by those given."""

    def loss(params: Params) -> tuple[jax.Array, dict[str, Mean]]:
        terms, metrics = objective(params, teacher, batch, key)
        total = sum(
            (
                term.factor
                * Mean(term.mean.total, weights[name] if weights else term.mean.weight).value()
                for name, term in terms.items()
            ),
            jnp.float32(0.0),
        )
        return total, {**{name: term.mean for name, term in terms.items()}, **metrics}

    (total, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    # Those of parameters read in bfloat16 are added up, and updated with, in float32.
    return Sums(optax.tree.cast(gradients, jnp.float32), total, metrics)
