"""Between the typed configuration and the `ConfigDict` that the command line overrides.

`from_config_dict` is the one door through which a configuration enters; what passes it can be run.
"""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import ml_collections

from mobilebert_jax import bounds
from mobilebert_jax.config.schema import Config, InputError, nearest
from mobilebert_jax.config.validation import problems


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """Returns the locked `ConfigDict` form of `config`, for the command line to override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config), type_safe=True).lock()


def from_config_dict(config_dict: ml_collections.ConfigDict) -> Config:
    """Returns the typed, checked form of `config_dict`; raises InputError listing every mistake."""
    wrong: dict[str, str] = {}
    config = _build(Config, config_dict.to_dict(), "", wrong)
    wrong |= {key: said for key, said in bounds.problems(config).items() if key not in wrong}
    found = [*wrong.values()]
    # What stands in place of a wrong value has no part in a contradiction.
    found += [
        said
        for said in problems(bounds.with_defaults(config, Config()))
        if not any(f"{k}=" in said for k in wrong)
    ]
    if found:
        raise InputError(
            "the configuration cannot be used:\n" + "\n".join(f"  - {p}" for p in found)
        )
    return config


def _build(cls: type, values: Mapping[str, Any], path: str, wrong: dict[str, str]) -> Any:
    """Builds dataclass `cls` from nested dicts, checking names, choices and types.

    What is wrong is added to `wrong` by key, and the default stands in its place.
    """
    hints = typing.get_type_hints(cls)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    built = {}
    for name, value in values.items():
        key = f"{path}{name}"
        if name not in hints:
            wrong[key] = f"there is no setting {key}; the nearest is {path}{nearest(name, hints)}"
        elif dataclasses.is_dataclass(hints[name]):
            built[name] = _build(typing.cast(type, hints[name]), value, f"{key}.", wrong)
        else:
            try:
                built[name] = _typed(key, value, hints[name])
            except InputError as error:
                wrong[key] = str(error)
                built[name] = defaults[name]
    return cls(**built)


def _typed(key: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        return _entries(key, value, typing.get_args(hint)[0])
    if typing.get_origin(hint) is Literal:
        _check_choice(key, value, typing.get_args(hint))
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{key}={value!r} must be of type {hint.__name__}")
    return value


def _entries(key: str, values: Iterable[Any], kind: type) -> tuple[Any, ...]:
    # The command line gives "a,b" as the one entry of a tuple.
    parts = [part.strip() for entry in values for part in str(entry).split(",")]
    try:
        return tuple(kind(part) for part in parts if part)
    except ValueError as error:
        raise InputError(f"{key}={','.join(parts)!r} must be a list of {kind.__name__}") from error


def _check_choice(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value in allowed:
        return
    if key == "precision" and value in ("float16", "fp16", "half"):
        raise InputError(
            "precision='float16' is refused: the features of a NoNorm student grow into the "
            "thousands and overflow float16; use 'bfloat16' or 'float32'"
        )
    raise InputError(
        f"{key}={value!r} is not one of {', '.join(map(repr, allowed))}; "
        f"the nearest is {nearest(str(value), allowed)!r}"
    )
