"""An optax optimiser from the settings: LAMB, AdamW, or any other that is named.

    skip_spikes(average_ranges(chain(
        clip_by_gradient_norm, restart_where_frozen(stacked(rule)), scale_by_learning_rates)))

`rule` is made of optax's own parts. Only Adam without bias correction, which is BERT's, is not
among them. Updates take the extra arguments `step`, `gradient_norm` and `part`.

Source: LAMB (You et al., 2020), the authors' optimiser; AdamW (Loshchilov and Hutter, 2019).
"""

import ast
import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.optimizer.gradient_norm import clip_by_gradient_norm, skip_spikes
from mobilebert_jax.optimizer.layerwise import restart_where_frozen, scale_by_learning_rates
from mobilebert_jax.optimizer.masks import decays
from mobilebert_jax.optimizer.quantization_ranges import average_ranges
from mobilebert_jax.optimizer.schedules import Multipliers
from mobilebert_jax.optimizer.stacked import stacked

Tree = Any


class Optimizer(NamedTuple):
    """A transformation, with the learning rates that it applies, for whoever reports them."""

    transformation: optax.GradientTransformationExtraArgs
    base: optax.Schedule
    multipliers: Multipliers

    def init(self, params: Tree) -> optax.OptState:
        """Returns the state before the first step."""
        return self.transformation.init(params)

    def learning_rate(self, step: jax.Array) -> jax.Array:
        """Returns the learning rate of the fastest parameters."""
        multiplier = self.multipliers(step)
        return self.base(step) * jnp.maximum(jnp.max(multiplier.blocks_N), multiplier.others)


def build(
    settings: schema.Optimizer,
    base: optax.Schedule,
    multipliers: Multipliers,
    restart_every: int = 0,
) -> Optimizer:
    """Returns the optimiser of `settings`, whose learning rate is `base` times `multipliers`.

    `restart_every` are the steps between the restarts that the multipliers cause by being 0; the
    filter of spikes forgets at each. Raises InputError for a rule that is not found.
    """
    transformation = average_ranges(
        optax.chain(
            clip_by_gradient_norm(settings.clip_norm),
            restart_where_frozen(stacked(rule(settings)), multipliers),
            scale_by_learning_rates(base, multipliers),
        )
    )
    if settings.skip_gradient_norm_ratio:
        ratio = settings.skip_gradient_norm_ratio
        transformation = skip_spikes(transformation, ratio, restart_every)
    return Optimizer(transformation, base, multipliers)


def rule(settings: schema.Optimizer) -> optax.GradientTransformation:
    """Returns what makes directions of ascent from gradients, for a learning rate of 1."""
    if settings.name not in schema.OPTIMIZERS:
        named = named_rule(settings.name, settings.arguments)
        return optax.chain(named, optax.scale(-1.0))
    adam = optax.scale_by_adam if settings.bias_correction else scale_by_uncorrected_adam
    parts = [
        adam(settings.beta1, settings.beta2, settings.epsilon),
        optax.add_decayed_weights(settings.weight_decay, decay_mask),
    ]
    if settings.name == "lamb":
        parts.append(optax.masked(optax.scale_by_trust_ratio(), decay_mask))
    return optax.chain(*parts)


def decay_mask(tree: Tree) -> Tree:
    """Returns which parameters are decayed and scaled by a trust ratio, as bools."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: decays(path), tree)


class AdamState(NamedTuple):
    """Means of the gradient and of its square."""

    mu: optax.Updates
    nu: optax.Updates


def scale_by_uncorrected_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam without bias correction, as BERT's code has it."""

    def init(params: Tree) -> AdamState:
        return AdamState(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(
        updates: Tree, state: AdamState, params: Tree | None = None
    ) -> tuple[Tree, AdamState]:
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu), AdamState(mu, nu)

    return optax.GradientTransformation(init, update)


def named_rule(name: str, arguments: Sequence[str]) -> optax.GradientTransformation:
    """Returns `name(learning_rate=1.0, **arguments)`, such as `optax.lion`.

    Raises InputError where there is no such function, or where it does not take the arguments.
    """
    module_name, dot, function_name = name.rpartition(".")
    try:
        module = importlib.import_module(module_name if dot else name)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"optimizer.name={name!r}: {error}; it must be 'lamb', 'adamw' or the full name of a "
            "function that returns an optax transformation, such as optax.lion"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [known for known in vars(module) if not known.startswith("_")]
        raise InputError(
            f"optimizer.name={name!r}: {module_name} has no function {function_name!r}; the "
            f"nearest is {module_name}.{nearest(function_name, known)}"
        )
    keywords = dict(_argument(argument) for argument in arguments)
    try:
        made = function(learning_rate=1.0, **keywords)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer.arguments={tuple(arguments)} for {name}: {error}") from None
    if not hasattr(made, "init") or not hasattr(made, "update"):
        raise InputError(f"optimizer.name={name!r} returns no optax transformation but {made!r}")
    named: optax.GradientTransformation = made
    return named


def _argument(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        given = "has no value" if not sign else f"has the value {value!r}, which is no literal"
        raise InputError(
            f"optimizer.arguments: {text!r} {given}; write NAME=VALUE, such as b1=0.95"
        ) from None
