"""Questions and their contexts as token ids, in windows that overlap (BERT's recipe).

A window is `[CLS] question [SEP] part of the context [SEP]`. Windows of a question start `stride`
context tokens apart, until one holds the context's end; so a long context is seen whole. All
windows lie one after another in flat arrays.

Shapes: W windows, T tokens of all windows together, n tokens of one context.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config.finetune import Squad
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data.tokenizer_base import Spans, Tokenizer
from mobilebert_jax.finetune.squad.files import SquadData

CUT = "questions cut to the query length"
LEFT_OUT = "questions left out of training, without an answer in the text"

Ints = NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class Windows:
    """All windows of a file; positions count from a window's `[CLS]`, at 0."""

    ids_T: Ints
    starts: NDArray[np.int64]
    """[W + 1]: window w is `ids_T[starts[w]:starts[w + 1]]`."""
    second_start_W: Ints
    """Where the context begins; from there on the segment is 1, before it 0."""
    question_W: Ints
    """Index into `SquadData.questions`; windows of one question are neighbours and in order."""
    context_W: Ints
    """Index into `SquadData.contexts` and `spans`."""
    offset_W: Ints
    """The first context token, counted from the context's beginning."""
    answer_start_W: Ints
    answer_end_W: Ints
    """Last token of the first findable answer; both are 0 where the window does not hold all of it,
    or there is none."""
    spans: Sequence[Spans]
    """Of each context: [n, 2], the characters that its tokens stand for."""
    notes: Mapping[str, int]
    """What was counted: `CUT`, and `LEFT_OUT` of training data."""

    @property
    def context_length_W(self) -> Ints:
        """Context tokens of each window."""
        return (np.diff(self.starts) - self.second_start_W - 1).astype(np.int32)

    def max_context_T(self) -> NDArray[np.bool_]:
        """Returns which tokens have their most context in this window of all that hold them.

        That is the first window with the greatest min(tokens to the left, to the right) + 0.01 *
        its length (BERT's run_squad.py). Tokens outside the context are false.
        """
        most_T = np.zeros(len(self.ids_T), bool)
        lengths_W = self.context_length_W
        first_of_question = np.flatnonzero(np.diff(self.question_W, prepend=-1))
        ends = np.append(first_of_question[1:], len(self.question_W))
        for first, end in zip(first_of_question.tolist(), ends.tolist(), strict=True):
            best_n = _best_window(self.offset_W[first:end], lengths_W[first:end])
            for w in range(first, end):
                begin = int(self.starts[w] + self.second_start_W[w])
                held = slice(int(self.offset_W[w]), int(self.offset_W[w] + lengths_W[w]))
                most_T[begin : begin + int(lengths_W[w])] = best_n[held] == w - first
        return most_T


def windows(data: SquadData, tokenizer: Tokenizer, span: Squad, *, training: bool) -> Windows:
    """Returns the windows of every question of `data`.

    For training, questions that should have an answer but have none that is findable are left out,
    and the others come in the order of their ids; else all questions are kept, in the file's order.
    """
    encoded = tokenizer.encode_with_spans(data.contexts)
    spans = [spans for _, spans in encoded]
    context_ids = [np.array(ids, np.int32) for ids, _ in encoded]
    answers_Q = _answer_tokens(data, spans)
    kept = np.arange(len(data.questions))
    if training:
        impossible = np.array([question.impossible for question in data.questions])
        kept = np.flatnonzero(impossible | (answers_Q[:, 0] >= 0))
        if not len(kept):
            raise InputError(
                f"{data.questions[0].where}: neither this nor any other of the "
                f"{len(data.questions)} questions has an answer in its text to train on"
            )
        # TFDS stores its records shuffled: without an order of its own, training on the same
        # questions would depend on where they were read from.
        kept = np.array(sorted(kept.tolist(), key=lambda q: data.questions[q].id))
    whole = tokenizer.encode([data.questions[q].text for q in kept.tolist()])
    question_ids = [np.array(ids[: span.max_query_length], np.int32) for ids in whole]
    notes = {CUT: sum(len(ids) > span.max_query_length for ids in whole)}
    if training:
        notes[LEFT_OUT] = len(data.questions) - len(kept)
    contexts = np.array([data.questions[q].context for q in kept.tolist()], np.int64)
    return _lay_out(
        question_ids, context_ids, contexts, kept, answers_Q[kept], spans, span,
        (tokenizer.cls, tokenizer.sep), notes,
    )  # fmt: skip


def _lay_out(
    question_ids: list[Ints],
    context_ids: list[Ints],
    contexts: NDArray[np.int64],
    kept: NDArray[np.int64],
    answers: NDArray[np.int64],
    spans: Sequence[Spans],
    span: Squad,
    specials: tuple[int, int],
    notes: dict[str, int],
) -> Windows:
    """Places the pieces of all windows; `question_ids`, `contexts` (index into `context_ids`),
    `kept` and `answers` [., 2] (tokens of the context, -1 for none) have one row a question."""
    query = np.array([len(ids) for ids in question_ids], np.int64)
    length = np.array([len(ids) for ids in context_ids], np.int64)[contexts]
    room = span.max_seq_length - query - 3
    step = np.minimum(room, span.doc_stride)
    count = 1 + np.maximum(0, -((room - length) // step))
    row = np.repeat(np.arange(len(count)), count)
    number = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    offset = number * step[row]
    held = np.minimum(room[row], length[row] - offset)
    second = query[row] + 2
    starts = np.append(0, np.cumsum(second + held + 1))
    # Everything that no question and no context fills is a separator or a [CLS].
    ids_T = np.full(int(starts[-1]), specials[1], np.int32)
    ids_T[starts[:-1]] = specials[0]
    ids_T[_ranges(starts[:-1] + 1, query[row])] = _gathered(question_ids, row, 0 * row, query[row])
    ids_T[_ranges(starts[:-1] + second, held)] = _gathered(context_ids, contexts[row], offset, held)
    answer_W = answers[row] - offset[:, None]
    inside = (answers[row, 0] >= 0) & (answer_W[:, 0] >= 0) & (answer_W[:, 1] < held)
    positions = np.where(inside[:, None], answer_W + second[:, None], 0).astype(np.int32)
    return Windows(
        ids_T, starts, second.astype(np.int32), kept[row].astype(np.int32),
        contexts[row].astype(np.int32), offset.astype(np.int32), positions[:, 0], positions[:, 1],
        spans, notes,
    )  # fmt: skip


def _answer_tokens(data: SquadData, spans: Sequence[Spans]) -> NDArray[np.int64]:
    """Returns int64 [questions, 2]: the first and last token of the smallest run that covers the
    first findable answer; -1 where there is none or the question is impossible."""
    found = np.full((len(data.questions), 2), -1, np.int64)
    asked: dict[int, list[tuple[int, int, int]]] = {}
    for q, question in enumerate(data.questions):
        for text, start in zip(question.answers, question.starts, strict=True):
            if start >= 0 and not question.impossible:
                lead, end = len(text) - len(text.lstrip()), len(text.rstrip())
                asked.setdefault(question.context, []).append((q, start + lead, start + end))
                break
    for context, rows in asked.items():
        q, begin, end = np.array(rows).T
        # Tokens that stand for nothing but space cover no character of any answer.
        inked = np.flatnonzero(spans[context][:, 0] < spans[context][:, 1])
        first = np.searchsorted(spans[context][inked, 1], begin, side="right")
        last = np.searchsorted(spans[context][inked, 0], end, side="left") - 1
        covered = first <= last
        found[q[covered], 0] = inked[first[covered]]
        found[q[covered], 1] = inked[last[covered]]
    return found


def _best_window(offsets: Ints, lengths: Ints) -> NDArray[np.intp]:
    """Returns [n]: for each token of the context, the window in which it has the most context."""
    position_n = np.arange(int(offsets[-1] + lengths[-1]))
    if len(offsets) == 1:
        return np.zeros(len(position_n), np.intp)
    left = position_n - offsets[:, None].astype(np.int64)
    right = lengths[:, None] - 1 - left
    score = np.minimum(left, right) + 0.01 * lengths[:, None]
    best: NDArray[np.intp] = np.where((left >= 0) & (right >= 0), score, -math.inf).argmax(axis=0)
    return best


def _ranges(begin: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns begin[0], begin[0] + 1, ... (length[0] of them), begin[1], ..., joined."""
    before = np.cumsum(length) - length
    return np.arange(int(length.sum())) + np.repeat(begin - before, length)


def _gathered(
    arrays: list[Ints],
    which: NDArray[np.int64],
    begin: NDArray[np.int64],
    length: NDArray[np.int64],
) -> Ints:
    """Returns `arrays[which[0]][begin[0]:begin[0] + length[0]]`, ..., joined."""
    sizes = np.array([len(array) for array in arrays], np.int64)
    before = np.cumsum(sizes) - sizes
    joined: Ints = np.concatenate(arrays)[_ranges(before[which] + begin, length)]
    return joined
