"""Lines of text files, and the checks on what stands in them that all readers of tasks share."""

import functools
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.data import compressed

_READ_BYTES = 1 << 20
_LARGEST = 3.4e38
"""What training can hold."""


def numbered(path: str) -> Iterator[tuple[int, str]]:
    r"""Yields `(number from 1, line)` of a UTF-8 file, compressed if named `.gz` or `.zst`.

    A line ends at `\n` or `\r\n`, never at other separators of Unicode, which occur within texts.
    A byte-order mark is no part of the first line. Raises InputError if the file is missing (with
    what is there instead), damaged or not UTF-8 (with the line).
    """
    number = 0
    try:
        with storage.open_bytes(path) as file:
            chunks = iter(functools.partial(file.read, _READ_BYTES), b"")
            for number, line in enumerate(_lines(compressed.content(path, chunks)), 1):
                text = line.removesuffix(b"\r").decode()
                yield number, text.removeprefix("\ufeff") if number == 1 else text
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        # What Excel calls Unicode text begins with this mark.
        utf_16 = number == 1 and error.start == 0 and found in (0xFE, 0xFF)
        raise InputError(
            f"{path}:{number} is not UTF-8: byte 0x{found:02x} at byte {error.start + 1} of the "
            "line; convert the file first, for example with: "
            f"iconv -f {'UTF-16' if utf_16 else 'ISO-8859-1'} -t UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}; {beside(path)}"
        ) from error


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def beside(path: str) -> str:
    """Returns what lies in the folder where `path` was expected, for messages."""
    folder = os.path.dirname(path) or "."
    names = storage.names(storage.path(folder))
    return f"{folder} holds {', '.join(names[:20]) or 'nothing'}{' ...' if names[20:] else ''}"


def check_columns(found: int, expected: int, where: str) -> None:
    """Raises InputError for a row with another number of columns than its file's first row."""
    if found != expected:
        raise InputError(f"{where}: {found} columns where {expected} are expected")


def position(column: str, header: Sequence[str], where: str) -> int:
    """Returns where `column` stands in `header`; raises InputError unless it is there once."""
    if header.count(column) == 1:
        return header.index(column)
    if column in header:
        raise InputError(f"{where}: the column {column!r} occurs {header.count(column)} times")
    raise InputError(
        f"{where}: no column {column!r}; there are {', '.join(map(repr, header[:20]))}; "
        f"the nearest is {nearest(column, header)!r}"
    )


def class_index(label: str, indices: dict[str, int], where: str) -> int:
    """Returns the index of a class or tag; raises InputError with the nearest if it is unknown."""
    if label in indices:
        return indices[label]
    allowed = [*list(indices)[:20], "..."] if len(indices) > 20 else list(indices)
    equal = next((known for known in indices if _are_one_number(label, known)), None)
    if equal is not None:
        raise InputError(
            f"{where}: the label {label!r} is unknown, and {equal!r} is the same number in another "
            "spelling: classes are compared as text, so write both alike"
        )
    raise InputError(
        f"{where}: the label {label!r} is unknown; allowed are {', '.join(allowed)}; "
        f"the nearest is {nearest(label, indices)!r}"
    )


def _are_one_number(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def score(text: str, where: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Returns the number that `text` is; raises InputError for another text or range."""
    try:
        if "_" in text:  # Python reads 1_5 as 15
            raise ValueError(text)
        value = float(text)
    except ValueError as error:
        raise InputError(f"{where}: the label {text!r} is not a number") from error
    if not abs(value) <= _LARGEST:
        raise InputError(
            f"{where}: the label {text!r} is not a finite number of at most {_LARGEST:.1e}"
        )
    if not low <= value <= high:
        raise InputError(f"{where}: the score {text} is not in the range {low:g} to {high:g}")
    return value


def check_label(label: str, where: str) -> None:
    """Raises InputError for a label that files of predictions could not hold on a line."""
    for character in label:
        if character in "\t\r\n" or "\ud800" <= character <= "\udfff":
            raise InputError(
                f"{where}: the label {label!r} holds {character!r}; a label may hold neither tabs "
                "nor line ends nor halves of surrogate pairs"
            )


SHARED = "rows that are among the training rows too"
"""Ends the name of what `note_shared` counts."""


def note_shared(
    train: Iterable[Sequence[str]], dev: Iterable[Sequence[str]], path: str, notes: Counter[str]
) -> None:
    """Counts the rows of the dev file at `path` that are among the training rows: their metrics
    say nothing of texts that are new."""
    learnt = set(map(tuple, train))
    if found := sum(tuple(texts) in learnt for texts in dev):
        notes[f"{os.path.basename(path)}: {SHARED}"] = found


def keeps(
    texts: Sequence[str | None],
    name: str,
    where: str,
    notes: Counter[str],
    *,
    train: bool,
    leave_out: bool = False,
) -> bool:
    """Whether a row of the split called `name` is kept; one with an empty text is counted.

    Dev and test sets keep it, because all of their rows are scored. A training set leaves it out
    with `leave_out`, and otherwise InputError is raised.
    """
    if all(text is None or text.strip() for text in texts):
        return True
    if train and not leave_out:
        raise InputError(f"{where}: the text is empty; remove the row or correct it")
    notes[f"{name}: rows with an empty text, {'left out' if train else 'kept'}"] += 1
    return not train
