"""Lines that are JSON objects, as corpora, tasks and requests have them."""

import json
from typing import Any

from mobilebert_jax.config.schema import InputError, nearest


def parse(line: str, where: str) -> dict[str, Any]:
    """Returns the object of a line; `where` begins the message of the InputError that anything else
    raises: text that is no JSON, other values, numbers and nesting beyond Python's limits."""
    try:
        record = json.loads(line, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON: {error.msg} at column {error.colno}; one whole object a line is "
            "expected"
        ) from error
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond Python's limits
        raise InputError(f"{where} cannot be read as JSON: {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{where} holds a {type(record).__name__}, not a JSON object")
    return record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object of `pairs`; raises ValueError for a name that occurs twice."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} occurs twice in an object")
    return record


def field(record: dict[str, Any], name: str, where: str) -> Any:
    """Returns a field; raises InputError with the nearest one where there is none."""
    if name not in record:
        like = f"; the nearest is {nearest(name, record)!r}" if record else ""
        raise InputError(f"{where} has no field {name!r}{like}")
    return record[name]


def text(record: dict[str, Any], name: str, where: str) -> str:
    """Returns a field that holds text; raises InputError for what cannot be written as UTF-8."""
    found = field(record, name, where)
    if not isinstance(found, str):
        raise InputError(f"{where}: the field {name!r} holds a {type(found).__name__}, not a text")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: the field {name!r} holds half of a surrogate pair "
            f"(\\u{ord(found[error.start]):04x}), which is no character"
        ) from error
    return found
