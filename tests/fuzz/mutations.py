"""Damage and malice, drawn by hypothesis: bytes and JSON that are nearly what a reader expects."""

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

CHUNKS = (
    b"",
    b"\0",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\t",
    b"\t\t\t",
    b" ",
    b'"',
    b'""',
    b"\\",
    b",",
    b"{",
    b"}",
    b"[",
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"0x10",
    b"[MASK]",
    b"##",
    b"<doc",
    b"</doc>",
    b"-DOCSTART-",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\xf4\x90\x80\x80",
    "\u2028\u0085\u00a0\u200d\u0301\ufffd".encode(),
    "東京مرحبا".encode(),
    b"\\ud800",
    b"[" * 5_000,
    b"9" * 5_000,
    b"a" * 5_000,
)
"""What has broken readers: separators, marks, encodings, limits."""

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    10**30,
    0.5,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "0",
    "a",
    "[PAD]",
    "\ud800",
    "../..",
    "x" * 3_000,
    [],
    [0],
    [[]],
    ["a", "a"],
    {},
    {"a": 1},
)
"""What may stand in JSON where something else is expected."""

_WHOLE = st.integers(0, 2**31 - 1)


def damaged(contents: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Returns a strategy for contents with one to four pieces of damage, or now and then none."""
    return st.builds(
        _damage,
        st.sampled_from(list(contents)),
        st.lists(st.tuples(st.integers(0, 8), _WHOLE, _WHOLE, st.sampled_from(CHUNKS)), max_size=4),
    )


def _damage(content: bytes, operations: list[tuple[int, int, int, bytes]]) -> bytes:
    for operation, first, second, chunk in operations:
        size = max(len(content), 1)
        start = first % size
        stop = start + second % min(size - start + 1, 200)
        head, middle, tail = content[:start], content[start:stop], content[stop:]
        match operation:
            case 0:
                content = head + chunk + content[start:]
            case 1:
                content = head + chunk + tail
            case 2:
                content = head + tail
            case 3:
                content = head + middle * 3 + tail
            case 4:
                content = head
            case 5 if content:
                content = head + bytes([content[start] ^ 1 << second % 8]) + content[start + 1 :]
            case 6:
                lines = content.split(b"\n")
                a, b = first % len(lines), second % len(lines)
                lines[a], lines[b] = lines[b], lines[a]
                content = b"\n".join(lines)
            case 7:
                content = _with_number(content, first, str(second - 2**30).encode())
            case 8:
                content = head + bytes([second % 256]) + content[start + 1 :]
    return content


def _with_number(content: bytes, which: int, number: bytes) -> bytes:
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return content
    match = found[which % len(found)]
    return content[: match.start()] + number + content[match.end() :]


def damaged_json(values: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Returns a strategy for the JSON of values in which up to three places hold something else."""
    return st.builds(
        _json_damage,
        st.sampled_from([json.dumps(value) for value in values]),
        st.lists(st.tuples(st.integers(0, 2), _WHOLE, st.sampled_from(VALUES)), max_size=3),
    )


def _json_damage(text: str, operations: list[tuple[int, int, Any]]) -> bytes:
    value = json.loads(text)
    for operation, which, replacement in operations:
        places = list(_places(value))
        if not places:
            break
        holder, key = places[which % len(places)]
        match operation:
            case 0:
                holder[key] = copy.deepcopy(replacement)
            case 1:
                del holder[key]
            case 2 if isinstance(holder, dict):
                holder[f"{key}_"] = copy.deepcopy(replacement)
            case 2:
                holder.insert(key, copy.deepcopy(replacement))
    return json.dumps(value).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Returns every `(holder, key)` of nested objects and lists; of a long list the first ten."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))[:10]
        if isinstance(value, list)
        else []
    )
    found = [(value, key) for key, _ in items]
    for _, item in items:
        found += _places(item)
    return found
