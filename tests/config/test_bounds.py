"""Every setting says what it may be, its default is that, and what it may not be is refused."""

import dataclasses
import math
import typing
from typing import Any, Literal

import pytest
from annotated_types import Interval

from mobilebert_jax import bounds
from mobilebert_jax.config.config_dict import from_config_dict, to_config_dict
from mobilebert_jax.config.schema import Config, InputError

LEAVES = list(bounds.leaves(Config()))
NUMBERS = [
    (key, value, rules)
    for key, value, rules in LEAVES
    if any(type(one) in (int, float) for one in (value if isinstance(value, tuple) else (value,)))
]


def hints(cls: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the type of every leaf as it is written, `Annotated` and all."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            found |= hints(hint, f"{prefix}{name}.")
        else:
            found[prefix + name] = hint
    return found


def entry(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint


def test_every_setting_has_bounds_or_a_list_of_choices() -> None:
    for key, hint in hints(Config).items():
        hint = entry(hint)
        if hint is bool or typing.get_origin(hint) is Literal:
            continue
        assert typing.get_origin(hint) is typing.Annotated, f"{key} says not what it may be"
        kind, *rules = typing.get_args(hint)
        if kind is str:
            assert any(isinstance(rule, bounds.Rule) for rule in rules), key
        else:
            (interval,) = (rule for rule in rules if isinstance(rule, Interval))
            low, high = interval.ge, interval.le
            assert low is not None and high is not None and low < high, key  # type: ignore[operator]
            assert type(low) is kind and type(high) is kind and math.isfinite(high), key


def test_every_default_is_allowed() -> None:
    assert bounds.problems(Config()) == {}
    assert bounds.with_defaults(Config(), Config()) == Config()


def refused(key: str, value: Any) -> str:
    """Returns the one line that refuses `value`."""
    config_dict = to_config_dict(Config(stages=("prepare", "teacher")))
    with pytest.raises(InputError) as error:
        config_dict.update_from_flattened_dict({key: value})
        from_config_dict(config_dict)
    heading, line = str(error.value).splitlines()
    assert heading == "the configuration cannot be used:"
    return line


@pytest.mark.parametrize(("key", "value", "rules"), NUMBERS, ids=[key for key, *_ in NUMBERS])
def test_a_number_beyond_either_end_is_refused_with_the_range_and_the_nearest(
    key: str, value: Any, rules: tuple[Any, ...]
) -> None:
    (interval,) = (rule for rule in rules if isinstance(rule, Interval))
    low, high = interval.ge, interval.le
    outside: dict[Any, Any] = {low - 1: low, high * 2: high}  # type: ignore[operator]
    if isinstance(low, float):
        outside |= {math.nan: low, math.inf: high, -math.inf: low}
    for wrong, near in outside.items():
        line = refused(key, (wrong,) if isinstance(value, tuple) else wrong)
        assert key in line and repr(wrong) in line and f"the nearest is {near!r}" in line


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("a\nb", "ab"),
        ("a/b c", "a_b_c"),
        ("", "run"),
        ("..", "run"),
        ("\x00", "run"),
        ("x" * 300, "x" * 200),
        ("پ" * 150, "پ" * 100),
    ],
)
def test_a_name_is_a_plain_folder_name(name: str, near: str) -> None:
    assert refused("name", name).endswith(f"the nearest is {near!r}")


@pytest.mark.parametrize("key", [key for key, value, _ in LEAVES if isinstance(value, str)])
def test_no_text_has_control_characters(key: str) -> None:
    assert repr("a\r\nb") in refused(key, "a\r\nb")


def test_an_axis_of_the_mesh_is_never_0() -> None:
    line = refused("execution.mesh.fsdp", 0)
    assert line.endswith("must be from 1, or -1 for what is left; the nearest is 1")
