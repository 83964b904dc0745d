"""What a number, a name or a path of the configuration may be, written into the type of its field.

    steps: Steps = 500_000

`problems` reads these types. This file must not import jax.
"""

import dataclasses
import math
import re
import typing
import unicodedata
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

from annotated_types import Interval

SEEDS = 1 << 32
"""How many there are: the key of a larger one is that of a smaller one."""


class Rule(NamedTuple):
    """What a value may be where an interval cannot say it, and how to mend one that is not."""

    allows: Callable[[Any], bool]
    allowed: str
    mended: Callable[[Any], Any]


_NAME_BYTES = 200  # file systems allow 255, and files beside the folder have longer names


def _is_plain(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def _plain(text: str) -> str:
    return "".join(c for c in text if _is_plain(c))


def _is_folder_name(text: str) -> bool:
    plain = bool(text) and _is_plain(text) and not text.startswith(".") and "/" not in text
    return plain and len(text.encode()) <= _NAME_BYTES


def _folder_name(text: str) -> str:
    short = _plain(text).encode()[:_NAME_BYTES].decode(errors="ignore")
    return re.sub(r"[/\s]+", "_", short).lstrip("._") or "run"


_PLAIN = Rule(_is_plain, "without line feeds and other control characters", _plain)
_FOLDER_NAME = Rule(
    _is_folder_name,
    f"a plain folder name of at most {_NAME_BYTES} bytes, without / and no . at its start",
    _folder_name,
)
_NOT_ZERO = Rule(lambda number: number != 0, "from 1, or -1 for what is left", lambda _: 1)

Text = Annotated[str, _PLAIN]
FolderName = Annotated[str, _FOLDER_NAME]

Seed = Annotated[int, Interval(ge=0, le=SEEDS - 1)]
Steps = Annotated[int, Interval(ge=1, le=1_000_000_000)]
StepsOrNone = Annotated[int, Interval(ge=0, le=1_000_000_000)]
Examples = Annotated[int, Interval(ge=1, le=1_000_000_000)]
BatchSize = Annotated[int, Interval(ge=1, le=10_000_000)]
Length = Annotated[int, Interval(ge=8, le=100_000)]
Tokens = Annotated[int, Interval(ge=1, le=100_000)]
Vocabulary = Annotated[int, Interval(ge=1, le=10_000_000)]
VocabularyOrNone = Annotated[int, Interval(ge=0, le=10_000_000)]
Megabytes = Annotated[int, Interval(ge=1, le=100_000_000)]
MegabytesOrAll = Annotated[int, Interval(ge=0, le=100_000_000)]
Width = Annotated[int, Interval(ge=1, le=1_000_000)]
Few = Annotated[int, Interval(ge=1, le=1_000)]
FewOrNone = Annotated[int, Interval(ge=0, le=1_000)]
Many = Annotated[int, Interval(ge=1, le=1_000_000)]
ManyOrNone = Annotated[int, Interval(ge=0, le=1_000_000)]
Axis = Annotated[int, Interval(ge=-1, le=1_000_000), _NOT_ZERO]

Share = Annotated[float, Interval(ge=0.0, le=1.0)]
NotAll = Annotated[float, Interval(ge=0.0, le=0.99)]
HeldOut = Annotated[float, Interval(ge=1e-9, le=0.99)]
Rate = Annotated[float, Interval(ge=0.0, le=10.0)]
PositiveRate = Annotated[float, Interval(ge=1e-12, le=10.0)]
Decay = Annotated[float, Interval(ge=0.0, le=0.9999999)]
Epsilon = Annotated[float, Interval(ge=1e-30, le=1.0)]
ClipNorm = Annotated[float, Interval(ge=1e-6, le=1e30)]
"""A large number clips nothing."""
Multiple = Annotated[float, Interval(ge=0.0, le=1e6)]
LossWeight = Annotated[float, Interval(ge=0.0, le=1e9)]
Temperature = Annotated[float, Interval(ge=0.01, le=100.0)]
Deviation = Annotated[float, Interval(ge=1e-6, le=10.0)]
Score = Annotated[float, Interval(ge=-1e6, le=1e6)]
Minutes = Annotated[float, Interval(ge=1.0, le=100_000.0)]
Seconds = Annotated[int, Interval(ge=1, le=1_000_000)]
PriceOrNone = Annotated[float, Interval(ge=0.0, le=1e6)]
GigabytesPerSecond = Annotated[float, Interval(ge=0.001, le=1e6)]
FailuresOrNone = Annotated[float, Interval(ge=0.0, le=1e4)]


def problems(config: Any, prefix: str = "") -> dict[str, str]:
    """Returns what is wrong with each setting of a dataclass that its type does not allow, by key.

    Every sentence says what is allowed, and the nearest value that is.
    """
    found = {}
    for key, value, rules in leaves(config, prefix):
        for one in _entries(value):
            broken = [rule for rule in rules if not _allows(rule, one)]
            if broken:
                in_a_list = isinstance(value, tuple)
                held = f"{key} holds {one!r}, which" if in_a_list else f"{key}={one!r}"
                near = _nearest(one, rules)
                found[key] = f"{held} must be {_allowed(broken[0])}; the nearest is {near!r}"
                break
    return found


def with_defaults(config: Any, defaults: Any) -> Any:
    """Returns the dataclass `config` with the value of `defaults` wherever one is not allowed."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    values = {}
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), getattr(defaults, field.name)
        rules = _rules(hints[field.name])
        if dataclasses.is_dataclass(value):
            values[field.name] = with_defaults(value, default)
        elif not all(_allows(rule, one) for rule in rules for one in _entries(value)):
            values[field.name] = default
    return dataclasses.replace(config, **values)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yields key, value and rules of every setting below a dataclass; those of a list are those of
    its entries."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
            continue
        yield f"{prefix}{field.name}", value, _rules(hint)


def _entries(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _rules(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    rules: tuple[Any, ...] = getattr(hint, "__metadata__", ())
    return rules


def _nearest(value: Any, rules: tuple[Any, ...]) -> Any:
    for rule in rules:
        if not _allows(rule, value):
            value = _mended(rule, value)
    return value


def _allows(rule: Interval | Rule, value: Any) -> bool:
    if isinstance(rule, Rule):
        return rule.allows(value)
    low, high = _ends(rule)
    return bool(low <= value <= high)  # a number that is none is in no interval


def _allowed(rule: Interval | Rule) -> str:
    if isinstance(rule, Rule):
        return rule.allowed
    low, high = _ends(rule)
    return (
        f"from {low:,} to {high:,}" if isinstance(low, int) else f"from {low:.12g} to {high:.12g}"
    )


def _mended(rule: Interval | Rule, value: Any) -> Any:
    if isinstance(rule, Rule):
        return rule.mended(value)
    low, high = _ends(rule)
    return low if math.isnan(value) or value < low else high


def _ends(interval: Interval) -> tuple[Any, Any]:
    return interval.ge, interval.le
