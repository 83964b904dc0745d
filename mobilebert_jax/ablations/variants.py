"""Variants of an experiment: what each is called, what it changes, which network it is judged by.

A variant is written `NAME STAGE SETTING=VALUE ...`. STAGE is the stage whose network is compared:
`distill` (the student), `control` (the student without layer-wise transfer) or `baseline` (from
scratch). All three read the same data for the same number of steps. This file must not import jax.
"""

import dataclasses
import re
from typing import Any, NamedTuple

from mobilebert_jax.config.config_dict import from_config_dict, to_config_dict
from mobilebert_jax.config.schema import Config, InputError, flatten, nearest

COMPARED = ("distill", "control", "baseline")
"""Stages whose networks have the student's sizes, data and number of steps."""
MAY_CHANGE = ("transfer.", "distill.", "student.")
"""Prefixes of what a variant may change: everything else is shared by all."""
FIXED = ("transfer.steps", "distill.steps", "transfer.batch_size", "distill.batch_size")
"""A variant with other steps or batches would read other data."""


class Variant(NamedTuple):
    """One row of the comparison; `config` is the experiment with the variant's settings."""

    name: str
    stage: str
    settings: dict[str, Any]
    config: Config


class Order(NamedTuple):
    """A claim of the paper: `better` has the lower loss."""

    better: str
    worse: str


def variants_of(config: Config) -> list[Variant]:
    """Returns the variants that the experiment compares; raises InputError for a mistake in one."""
    every = [_parse(text, config) for text in config.ablations.variants]
    names = [variant.name for variant in every]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"ablations.variants names {name!r} twice")
    for name in config.ablations.only:
        _check_name("ablations.only", name, names)
    chosen = config.ablations.only or names
    return [variant for variant in every if variant.name in chosen]


def orders_of(config: Config) -> list[Order]:
    """Returns the claims about variants that are compared; raises InputError for a mistake."""
    every = [variant.split()[0] for variant in config.ablations.variants]
    chosen = config.ablations.only or every
    orders = []
    for text in config.ablations.orders:
        parts = text.split(" < ")
        if len(parts) != 2:
            raise InputError(f"ablations.orders={text!r} is not of the form 'BETTER < WORSE'")
        for name in parts:
            _check_name("ablations.orders", name, every)
        orders.append(Order(*parts))
    return [order for order in orders if set(order) <= set(chosen)]


def ladder_of(config: Config) -> tuple[str, ...]:
    """Returns the variants that add one part each, as far as all of them are compared."""
    every = [variant.split()[0] for variant in config.ablations.variants]
    for name in config.ablations.ladder:
        _check_name("ablations.ladder", name, every)
    largest, ladder = config.ablations.largest_gain, config.ablations.ladder
    if largest and largest not in ladder[1:]:
        raise InputError(
            f"ablations.largest_gain={largest!r} must be one of ablations.ladder after the first: "
            f"{', '.join(ladder[1:])}"
        )
    chosen = config.ablations.only or every
    return ladder if set(ladder) <= set(chosen) else ()


def check(config: Config) -> None:
    """Raises InputError for a mistake in the section `ablations`."""
    variants_of(config), orders_of(config), ladder_of(config)
    steps, layers = config.transfer.steps, config.student.num_hidden_layers
    if config.ablations.variants and steps % layers:
        raise InputError(
            f"transfer.steps={steps} is no multiple of the student's {layers} layers, so that "
            "progressive transfer would take fewer steps than the other variants; the nearest is "
            f"{max(round(steps / layers), 2) * layers}"
        )
    if config.ablations.variants and not config.ablations.seeds:
        raise InputError("ablations.seeds is empty; name at least one seed")
    if len(set(config.ablations.seeds)) < len(config.ablations.seeds):
        raise InputError(f"ablations.seeds={config.ablations.seeds} names a seed twice")


def _parse(text: str, config: Config) -> Variant:
    name, *words = text.split()
    stage, *changes = words or [""]
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(
            f"ablations.variants: {name!r} is no name; use lower-case letters, digits and _"
        )
    if stage not in COMPARED:
        raise InputError(
            f"ablations.variants: {text!r} compares the stage {stage!r}; it must be one of "
            f"{', '.join(COMPARED)}; the nearest is {nearest(stage, COMPARED)!r}"
        )
    flat = flatten(config)
    allowed = [key for key in flat if key.startswith(MAY_CHANGE) and key not in FIXED]
    settings = {}
    for change in changes:
        key, _, value = change.partition("=")
        if key not in allowed:
            raise InputError(
                f"ablations.variants: {name} cannot change {key}; it may change settings of "
                f"transfer, distill and student other than steps and batch sizes; the nearest is "
                f"{nearest(key, allowed)}"
            )
        settings[key] = _typed(name, key, value, flat[key])
    config_dict = to_config_dict(dataclasses.replace(config, stages=("prepare", "teacher", stage)))
    config_dict.update_from_flattened_dict(settings)
    try:
        return Variant(name, stage, settings, from_config_dict(config_dict))
    except InputError as error:
        raise InputError(f"ablations.variants: {name}: {error}") from None


def _typed(name: str, key: str, value: str, current: Any) -> Any:
    try:
        if isinstance(current, bool):
            return {"True": True, "False": False}[value]
        return type(current)(value)
    except (KeyError, ValueError):
        raise InputError(
            f"ablations.variants: {name}: {key}={value!r} must be of type {type(current).__name__}"
        ) from None


def _check_name(setting: str, name: str, allowed: list[str]) -> None:
    if name not in allowed:
        raise InputError(
            f"{setting} names {name!r}, which is no variant; the nearest is "
            f"{nearest(name, allowed)!r}"
            if allowed
            else f"{setting} names {name!r}, but ablations.variants is empty"
        )
