"""From start and end logits to answers, and SQuAD's prediction files (BERT's run_squad.py).

Shapes: W windows, T tokens of all windows, K starts and ends considered in a window, C candidates.
"""

import dataclasses
import itertools
import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config.finetune import Squad
from mobilebert_jax.data import atomic
from mobilebert_jax.finetune.squad.files import SquadData
from mobilebert_jax.finetune.squad.windows import Windows

PREDICTIONS = "predictions.json"
N_BEST = "nbest_predictions.json"
NULL_ODDS = "null_odds.json"

_WINDOWS_AT_ONCE = 1024
_JOINER = "\u200d"


class Candidate(NamedTuple):
    """One answer to a question; the answer that there is none has the text ""."""

    text: str
    start_logit: float
    end_logit: float
    span_probability: float = 1.0
    """That the answer begins there, times that it ends there, among all places of its window."""

    @property
    def score(self) -> float:
        """The sum of the two logits."""
        return self.start_logit + self.end_logit


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers to all questions, by id; of several questions with one id, to the last."""

    predictions: Mapping[str, str]
    """"" where the question has no answer."""
    spans: Mapping[str, str]
    """The best text, even where the prediction is that there is none: what a search for the best
    threshold needs."""
    n_best: Mapping[str, list[dict[str, Any]]]
    """`text`, `probability` among these answers, `start_logit`, `end_logit` and `span_probability`,
    best first."""
    null_odds: Mapping[str, float]
    """Score of no answer minus that of the best text; empty for SQuAD v1.1."""


def answers(
    data: SquadData,
    windows: Windows,
    start_T: NDArray[np.floating[Any]],
    end_T: NDArray[np.floating[Any]],
    span: Squad,
) -> Answers:
    """Returns the answers for the logits `start_T` and `end_T` of the tokens `windows.ids_T`.

    In each window the `n_best` largest starts and ends are paired. A pair is an answer if both lie
    in the context, the start has its most context in this window, and the end does not come before
    the start nor more than `max_answer_length` tokens from it. A question without such a pair is
    answered "", which is no text of the context and so wrong where there is an answer; BERT wrote
    the word "empty". Its null odds are the null score, as if the best text scored 0.
    """
    total_W = _log_total_W(windows, start_T) + _log_total_W(windows, end_T)
    found = _Candidates.of(windows, start_T, end_T, total_W, span)
    null_W = np.stack([start_T[windows.starts[:-1]], end_T[windows.starts[:-1]]], 1).astype(float)
    firsts = np.flatnonzero(np.diff(windows.question_W, prepend=-1))
    bounds = [*firsts.tolist(), len(windows.question_W)]
    edges = np.searchsorted(found.question_C, np.arange(len(data.questions) + 1))
    predictions, spans, n_best, null_odds = {}, {}, {}, {}
    for first, end in itertools.pairwise(bounds):
        q = int(windows.question_W[first])
        question = data.questions[q]
        text = data.contexts[question.context]
        texts = found.texts(slice(int(edges[q]), int(edges[q + 1])), text)
        null = None
        if data.v2:
            lowest = int(np.argmin(np.sum(null_W[first:end], axis=1)))
            start, stop = null_W[first + lowest].tolist()
            null = Candidate("", start, stop, math.exp(start + stop - total_W[first + lowest]))
        best = next(texts, None)
        ranked = _rank(itertools.chain([best], texts) if best else texts, null, span.n_best_size)
        spans[question.id] = predictions[question.id] = best.text if best else ""
        n_best[question.id] = _with_probabilities(ranked)
        if null:
            odds = null.score - (best.score if best else 0.0)
            null_odds[question.id] = odds
            if odds > span.null_score_diff_threshold:
                predictions[question.id] = ""
    return Answers(predictions, spans, n_best, null_odds)


def write(found: Answers, folder: Path) -> None:
    """Writes the official files into `folder`: predictions, n-best, and null odds for v2.0."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Mapping[str, Any]] = {PREDICTIONS: found.predictions, N_BEST: found.n_best}
    if found.null_odds:
        files[NULL_ODDS] = found.null_odds
    for name, content in files.items():
        # Questions stay in the order of the data file: the official search for a threshold goes
        # through equal odds in the order of the file.
        text = json.dumps(content, indent=4, allow_nan=False) + "\n"
        atomic.write_bytes(folder / name, text.encode())


def cut(text: str, begin: int, end: int) -> str:
    """Returns `text[begin:end]`, to the right as far as its last character reaches.

    Tokens stand for letters without the accents, vowel signs and joiners that the vocabulary's
    clean-up drops or splits off; what a reader sees as one character comes out whole.
    """
    while end < len(text) and not text[end].isascii() and begin < end:
        if text[end] == _JOINER:
            end += 1
            # A joiner makes one emoji of two; between letters it is part of the first.
            if end < len(text) and unicodedata.category(text[end])[0] == "S":
                end += 1
        elif unicodedata.category(text[end])[0] == "M" or _modifies_emoji(text[end]):
            end += 1
        else:
            break
    return text[begin:end]


def _modifies_emoji(character: str) -> bool:
    """Whether this is a skin tone, or a letter of the invisible spelling of a region's flag."""
    return "\U0001f3fb" <= character <= "\U0001f3ff" or "\U000e0020" <= character <= "\U000e007f"


class _Candidates(NamedTuple):
    """Pairs of tokens, sorted by question, then from the largest score down."""

    question_C: NDArray[np.int64]
    begin_C: NDArray[np.int64]
    """First character in the context."""
    end_C: NDArray[np.int64]
    start_logit_C: NDArray[np.float64]
    end_logit_C: NDArray[np.float64]
    span_probability_C: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        windows: Windows,
        start_T: NDArray[np.floating[Any]],
        end_T: NDArray[np.floating[Any]],
        total_W: NDArray[np.float64],
        span: Squad,
    ) -> "_Candidates":
        """Returns all valid pairs of all windows; `total_W` is the logarithm of what the
        exponentials of start plus end add up to."""
        most_T = windows.max_context_T()
        parts = []
        for first in range(0, len(windows.question_W), _WINDOWS_AT_ONCE):
            last = min(first + _WINDOWS_AT_ONCE, len(windows.question_W))
            parts.append(_pairs(windows, slice(first, last), start_T, end_T, most_T, span))
        w, start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
        flat = windows.starts[w]
        start_logit = start_T[flat + start].astype(float)
        end_logit = end_T[flat + end].astype(float)
        # Stable, so that equal scores stay in the order of windows, then of starts, as in BERT.
        order = np.lexsort((-(start_logit + end_logit), windows.question_W[w]))
        w, start, end = w[order], start[order], end[order]
        to_context = windows.offset_W[w] - windows.second_start_W[w]
        joined, before = _join(windows)
        at = before[windows.context_W[w]] + to_context
        return cls(
            windows.question_W[w].astype(np.int64),
            joined[at + start, 0].astype(np.int64),
            joined[at + end, 1].astype(np.int64),
            start_logit[order],
            end_logit[order],
            np.exp(start_logit[order] + end_logit[order] - total_W[w]),
        )

    def texts(self, rows: slice, context: str) -> Iterator[Candidate]:
        """Yields the candidates in `rows` that have a text."""
        for begin, end, *scores in zip(
            self.begin_C[rows].tolist(),
            self.end_C[rows].tolist(),
            self.start_logit_C[rows].tolist(),
            self.end_logit_C[rows].tolist(),
            self.span_probability_C[rows].tolist(),
            strict=True,
        ):
            if text := cut(context, begin, end):
                yield Candidate(text, *scores)


def _log_total_W(windows: Windows, logits_T: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Returns the logarithm of the sum of exponentials over `[CLS]` and the context of a window."""
    lengths_W = np.diff(windows.starts)
    position_T = np.arange(len(logits_T)) - np.repeat(windows.starts[:-1], lengths_W)
    context_T = position_T >= np.repeat(windows.second_start_W, lengths_W)
    context_T &= position_T < np.repeat(lengths_W - 1, lengths_W)
    allowed_T = np.where(context_T | (position_T == 0), logits_T.astype(float), -np.inf)
    most_W = np.maximum.reduceat(allowed_T, windows.starts[:-1])
    weights_T = np.exp(allowed_T - np.repeat(most_W, lengths_W))
    found: NDArray[np.float64] = most_W + np.log(np.add.reduceat(weights_T, windows.starts[:-1]))
    return found


def _pairs(
    windows: Windows,
    rows: slice,
    start_T: NDArray[np.floating[Any]],
    end_T: NDArray[np.floating[Any]],
    most_T: NDArray[np.bool_],
    span: Squad,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the window, the first and the last token of every valid pair of windows `rows`."""
    begin_W = windows.starts[:-1][rows, None]
    length_W = np.diff(windows.starts)[rows, None]
    position = np.arange(int(length_W.max()))
    real_WL = position < length_W
    flat_WL = np.where(real_WL, begin_W + position, 0)
    start_WK = _largest(np.where(real_WL, start_T[flat_WL], -math.inf), span.n_best_size)
    end_WK = _largest(np.where(real_WL, end_T[flat_WL], -math.inf), span.n_best_size)
    good_start_WK = most_T[begin_W + np.minimum(start_WK, length_W - 1)] & (start_WK < length_W)
    second_W = windows.second_start_W[rows, None]
    good_end_WK = (end_WK >= second_W) & (end_WK < length_W - 1)
    tokens_WKK = end_WK[:, None, :] - start_WK[:, :, None] + 1
    valid_WKK = (tokens_WKK >= 1) & (tokens_WKK <= span.max_answer_length)
    valid_WKK &= good_start_WK[:, :, None] & good_end_WK[:, None, :]
    w, i, j = np.nonzero(valid_WKK)
    return w + rows.start, start_WK[w, i], end_WK[w, j]


def _largest(logits_WL: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """Returns the positions of the `count` largest of each row, of equal ones the first."""
    return np.argsort(-logits_WL, axis=1, kind="stable")[:, :count]


def _rank(texts: Iterator[Candidate], null: Candidate | None, count: int) -> list[Candidate]:
    """Returns the `count` best candidates with different texts; `null`, if there is one, has its
    place among them, or the place after the last. One candidate "" if there is none."""
    ranked: list[Candidate] = []
    seen: set[str] = set()
    waiting = null
    for candidate in texts:
        if waiting and waiting.score > candidate.score and len(ranked) < count:
            ranked.append(waiting)
            waiting = None
        if len(ranked) >= count:
            break
        if candidate.text not in seen:
            seen.add(candidate.text)
            ranked.append(candidate)
    return ([*ranked, waiting] if waiting else ranked) or [Candidate("", 0.0, 0.0)]


def _with_probabilities(ranked: list[Candidate]) -> list[dict[str, Any]]:
    """Returns the entries of the n-best file; the probabilities are a softmax over the scores."""
    most = max(candidate.score for candidate in ranked)
    weights = [math.exp(candidate.score - most) for candidate in ranked]
    return [
        {
            "text": candidate.text,
            "probability": weight / sum(weights),
            "start_logit": candidate.start_logit,
            "end_logit": candidate.end_logit,
            "span_probability": candidate.span_probability,
        }
        for candidate, weight in zip(ranked, weights, strict=True)
    ]


def _join(windows: Windows) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Returns the spans of all contexts in one array, and where each context's begin."""
    sizes = np.array([len(spans) for spans in windows.spans], np.int64)
    return np.concatenate(list(windows.spans)), np.cumsum(sizes) - sizes
