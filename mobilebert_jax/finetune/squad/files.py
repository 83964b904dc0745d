"""Question answering data in SQuAD's official JSON, v1.1 and v2.0.

`{"version", "data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text",
"answer_start"}], "is_impossible"}]}]}]}`; other keys are ignored. `answers` may be missing, as in a
test file. Any key `is_impossible`, or the version "v2.0", makes the data v2.0.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mobilebert_jax.config.schema import InputError

DUPLICATE_IDS = "duplicate ids"
EMPTY_QUESTIONS = "empty questions"
MOVED = "answers moved to their nearest occurrence in the text"
NOT_FINDABLE = "answers not findable in the text"
UNANSWERED = "questions without an answer"
NOTES = (DUPLICATE_IDS, EMPTY_QUESTIONS, MOVED, NOT_FINDABLE, UNANSWERED)

_NAMES: dict[type, str] = {list: "a list", dict: "an object", str: "a text", int: "a whole number"}


class Question(NamedTuple):
    """One question about a context."""

    id: str
    text: str
    context: int
    """Index into `SquadData.contexts`."""
    answers: tuple[str, ...]
    """All gold answers as given; empty where there is none or the file does not tell."""
    starts: tuple[int, ...]
    """Where each answer begins in the context, in characters; -1 where it is not in the context."""
    impossible: bool
    """Whether the context does not hold the answer (v2.0)."""
    where: str
    """File and path inside it, for messages."""


@dataclasses.dataclass(frozen=True)
class SquadData:
    """One file of questions, as read."""

    contexts: Sequence[str]
    questions: Sequence[Question]
    v2: bool
    """Whether questions may have no answer (SQuAD v2.0)."""
    notes: Mapping[str, int]
    """Oddities of the file that are counted and reported instead of refused, all `NOTES`."""


def read(path: Path) -> SquadData:
    """Reads a file; raises InputError, saying where, if it is not whole or not of the format."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        text = content.decode("utf-8-sig")
        return from_json(json.loads(text), str(path))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 at byte {error.start}; convert it with iconv"
        ) from None
    except json.JSONDecodeError as error:
        byte = len(content) - len(text[error.pos :].encode())
        raise InputError(
            f"{path}: line {error.lineno}, byte {byte}: not valid JSON ({error.msg}); "
            "a file that was not downloaded to its end looks like this"
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{path}: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be SQuAD's format") from None


def from_json(content: Any, where: str) -> SquadData:
    """Returns the data of parsed JSON; `where` names its source in messages.

    Raises InputError, with the path inside the JSON, for a missing key, a value of the wrong type,
    or if there is no question at all.
    """
    contexts: list[str] = []
    raw: list[tuple[int, dict[str, Any], str]] = []
    for article, place in _items(_expect(content, dict, where, "the file"), "data", where):
        for paragraph, inner in _items(article, "paragraphs", place):
            contexts.append(_text(paragraph, "context", inner))
            raw += [(len(contexts) - 1, *qa) for qa in _items(paragraph, "qas", inner)]
    if not raw:
        raise InputError(f"{where}: holds no questions")
    v2 = content.get("version") == "v2.0" or any("is_impossible" in qa for _, qa, _ in raw)
    notes = Counter(dict.fromkeys(NOTES, 0))
    questions = [
        _question(qa, index, contexts[index], v2, place, notes) for index, qa, place in raw
    ]
    notes[DUPLICATE_IDS] = len(questions) - len({question.id for question in questions})
    return SquadData(contexts, questions, v2, dict(notes))


def _question(
    qa: dict[str, Any], index: int, context: str, v2: bool, where: str, notes: Counter[str]
) -> Question:
    texts, starts = [], []
    for answer, place in _items(qa, "answers", where) if "answers" in qa else ():
        text = _text(answer, "text", place)
        start = _expect(_get(answer, "answer_start", place), int, place, "'answer_start'")
        found = _locate(text, start, context)
        notes[NOT_FINDABLE] += found < 0
        notes[MOVED] += 0 <= found != start
        texts.append(text)
        starts.append(found)
    said = qa.get("is_impossible", not texts)
    if not isinstance(said, bool):  # the text "false" would count as true
        raise InputError(
            f"{where}: 'is_impossible' must be true or false, not {json.dumps(said)[:60]}"
        )
    impossible = v2 and said
    question = _text(qa, "question", where)
    notes[EMPTY_QUESTIONS] += not question.strip()
    notes[UNANSWERED] += not texts and not impossible
    id = _text(qa, "id", where)
    return Question(id, question, index, tuple(texts), tuple(starts), impossible, where)


def _locate(text: str, start: int, context: str) -> int:
    """Returns where `text` begins in `context`: at `start`, or nearest to it, or -1 for nowhere."""
    if not text.strip():
        return -1
    start = min(max(start, 0), len(context))
    right = context.find(text, start)
    if right == start:
        return start
    left = context.rfind(text, 0, start + len(text) - 1)
    if left < 0 or right < 0:
        return max(left, right)
    return left if start - left <= right - start else right


def _items(owner: Any, key: str, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields the objects of a list, each with its path."""
    path = f"{where}: {key}" if key == "data" else f"{where}.{key}"
    for number, item in enumerate(_expect(_get(owner, key, where), list, where, repr(key))):
        place = f"{path}[{number}]"
        yield _expect(item, dict, place, "this"), place


def _get(owner: dict[str, Any], key: str, where: str) -> Any:
    if key not in owner:
        present = ", ".join(map(repr, owner)) or "none"
        raise InputError(f"{where}: the key {key!r} is missing; there are {present}")
    return owner[key]


def _expect(value: Any, kind: type, where: str, what: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: {what} must be {_NAMES[kind]}, not {json.dumps(value)[:60]}")
    return value


def _text(owner: dict[str, Any], key: str, where: str) -> str:
    text: str = _expect(_get(owner, key, where), str, where, repr(key))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: {key!r} has half a surrogate pair at character {error.start}, "
            "which is no text; the file was cut or escaped wrongly"
        ) from None
    return text
