"""What is asked: one item a line, plain text or JSON, with the line it stands on for messages."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.data import json_lines
from mobilebert_jax.finetune.examples import Example

Element = TypeVar("Element")


class Item(NamedTuple):
    """One line of input."""

    fields: dict[str, Any]
    """Of a JSON object; of plain text `{"text": line}`."""
    where: str

    def text(self, name: str) -> str:
        """Returns the text of a field; raises InputError where it is missing or not a text."""
        if name not in self.fields:
            present = ", ".join(map(repr, self.fields)) or "none"
            hint = f"; nearest: {nearest(name, self.fields)!r}" if self.fields else ""
            raise InputError(f"{self.where}: no field {name!r}; there are {present}{hint}")
        value = self.fields[name]
        if not isinstance(value, str):
            raise InputError(f"{self.where}: {name!r} must be a text, not {json.dumps(value)[:60]}")
        return value

    def example(self) -> Example:
        """Returns `text`, and `second_text` where there is one."""
        second = self.text("second_text") if "second_text" in self.fields else None
        return Example(self.where, self.text("text"), second, None, self.where)


def read(lines: Iterable[bytes], name: str) -> Iterator[Item]:
    """Yields an item a line; a line that begins with `{` is JSON, an empty one is left out.

    Raises InputError, with `name` and the line, for what is neither UTF-8 text nor valid JSON.
    """
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8 at byte {error.start} of the line") from None
        if text.startswith("{"):
            yield Item(_parsed(text, where), where)
        elif text:
            yield Item({"text": text}, where)


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        found = json_lines.parse(text, where)
    except InputError as error:
        raise InputError(
            f"{error}; a line that begins with {{ is read as JSON, so write a text that does as "
            '{"text": "..."}'
        ) from None
    try:
        # What cannot be written as UTF-8, half a surrogate pair, no tokenizer reads either.
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: holds half of a surrogate pair, which is no text") from None
    return found


def in_groups(items: Iterable[Element], size: int) -> Iterator[list[Element]]:
    """Yields lists of up to `size` items, as soon as each is full, and those before a mistake."""
    group: list[Element] = []
    try:
        for item in items:
            group.append(item)
            if len(group) == size:
                yield group
                group = []
    except InputError:
        if group:
            yield group
        raise
    if group:
        yield group
