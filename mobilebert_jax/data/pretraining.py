"""Pretraining examples: pairs of segments cut from documents, and tokens masked in them.

This is BERT's recipe (Devlin et al. 2019, section 3.1 and appendix A.1; its released
`create_pretraining_data.py`), computed for one example at a time from an index, so that nothing is
written to disk, every epoch draws other pairs and other masks, and a restart needs no state.

Shapes: S length of an example, P most predictions in it, D documents, L sentences, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import random
import struct
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax import config

if TYPE_CHECKING:
    from mobilebert_jax.data.tokenizer import Tokenizer

SPECIAL_TOKENS = 3
"""[CLS] A [SEP] B [SEP]."""
MASKED_SHARE = 0.8
KEPT_SHARE = 0.1
"""Of the predicted tokens; the remaining tenth become random tokens."""

_WALK, _EXAMPLE = 0, 1


class Documents(Protocol):
    """Tokenised documents of one source, in a fixed order, long ones in several records.

    `token_counts` [R] counts each record's tokens; `document_numbers` [R], which never decrease,
    say which records are parts of one document.
    """

    @property
    def weight(self) -> float: ...

    @property
    def token_counts(self) -> NDArray[np.int64]: ...

    @property
    def document_numbers(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[NDArray[np.int32], NDArray[np.int32]]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """What examples need of a tokenizer; small, and cheap to send to another process."""

    pad: int
    cls: int
    sep: int
    mask: int
    ordinary: NDArray[np.int32]
    """Ids that a random replacement is drawn from: all but the special ones."""
    starts_word_V: NDArray[np.bool_]

    @property
    def size(self) -> int:
        return len(self.starts_word_V)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Returns the view of `tokenizer`; raises InputError when it has only special tokens."""
        special = [tokenizer.pad, tokenizer.unk, tokenizer.cls, tokenizer.sep, tokenizer.mask]
        ordinary = np.setdiff1d(np.arange(tokenizer.size, dtype=np.int32), special)
        if not len(ordinary):
            raise config.InputError(
                f"the vocabulary of {tokenizer.size} tokens holds nothing but special tokens; "
                "masking needs at least one ordinary token"
            )
        starts_word_V = np.asarray(tokenizer.starts_word, bool)
        return cls(
            tokenizer.pad, tokenizer.cls, tokenizer.sep, tokenizer.mask, ordinary, starts_word_V
        )


class Pair(NamedTuple):
    """Two segments as token offsets in a document: A is [start, middle), B is [middle, stop)."""

    start: int
    middle: int
    stop: int
    """Equal to `middle` when B is to come from another document."""
    target: int
    """Tokens wanted in both segments together."""

    @property
    def random_next(self) -> bool:
        return self.stop == self.middle


class Key(NamedTuple):
    """What, beside the example's index, decides every random choice made for it."""

    seed: int
    source: int
    epoch: int


def examples_of(token_counts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Returns how many examples of `length` tokens each document counts for in an epoch.

    It is about the number of pairs of a walk, of which half use half of what they gathered, and
    at least 1. The true number is random, and the size of an epoch must be fixed.
    """
    capacity = length - SPECIAL_TOKENS
    return np.maximum(1, (4 * token_counts + 3 * capacity // 2) // (3 * capacity))


def example_starts(token_counts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Returns starts[D + 1]: document d has the examples starts[d] to starts[d + 1] of an epoch."""
    starts = np.zeros(len(token_counts) + 1, np.int64)
    np.cumsum(examples_of(token_counts, length), out=starts[1:])
    return starts


def segment_pairs(
    sentence_lengths: NDArray[np.int32], length: int, short_rate: float, rng: random.Random
) -> list[Pair]:
    """Returns the pairs of one walk over a document of sentences with `sentence_lengths` [L] >= 1.

    As in BERT: sentences are gathered until they reach the target length or the document ends, A is
    a random number of them, and B is the others or, half of the time and whenever there are no
    others, comes from another document; then the unused sentences are gathered again. Every token
    of the document is in an A or in a true B. The target is the room in an example, or with
    probability `short_rate` a random shorter length, for the whole walk.
    """
    capacity = length - SPECIAL_TOKENS
    target = 2 + _below(rng, capacity - 1) if rng.random() < short_rate else capacity
    borders = _sentence_borders(sentence_lengths.tolist(), capacity)
    last = len(borders) - 1
    pairs = []
    first = 0
    while first < last:
        start = borders[first]
        middle = first + 1
        end = bisect_left(borders, start + target, middle, last)
        if end > middle:
            middle += _below(rng, end - middle)
            if rng.random() < 0.5:
                end = middle
        pairs.append(Pair(start, borders[middle], borders[end], target))
        first = end
    return pairs


def pretraining_example(
    documents: Documents,
    starts: NDArray[np.int64],
    index: int,
    *,
    key: Key,
    data: config.Data,
    vocabulary: Vocabulary,
) -> dict[str, NDArray]:
    """Returns example `index` of the epoch `key.epoch`, a pure function of its arguments.

    `starts` comes from `example_starts`. Returned: input_ids, input_mask, segment_ids [S] int32,
    masked_lm_positions, masked_lm_ids [P] int32, masked_lm_weights [P] float32 (1 for a prediction,
    0 for padding), next_sentence_labels [] int32 (0 when B follows A, 1 when it is random).
    """
    document = bisect_right(starts, index) - 1
    tokens, sentence_lengths = documents[document]
    pair = _nth_pair(sentence_lengths, index - int(starts[document]), data, key, document)
    rng = _generator(key, index, _EXAMPLE)
    tokens_a = tokens[pair.start : pair.middle]
    if pair.random_next:
        other = documents[_other_document(documents.document_numbers, document, rng)]
        tokens_b = _random_segment(other, pair.target - len(tokens_a), rng)
    else:
        tokens_b = tokens[pair.middle : pair.stop]
    tokens_a, tokens_b = truncate_pair(tokens_a, tokens_b, data.length - SPECIAL_TOKENS, rng)
    return _arrays(tokens_a, tokens_b, pair.random_next, data, vocabulary, rng)


def _nth_pair(
    sentence_lengths: NDArray[np.int32], number: int, data: config.Data, key: Key, document: int
) -> Pair:
    """Returns pair `number` of the document's walks in this epoch, one walk after the other.

    Every example of a document sees the same walks, so that together they cover it. Choosing in
    proportion to a walk's number of pairs would favour true pairs, for they make a walk short.
    """
    walk_rng = _generator(key, document, _WALK)
    while True:
        pairs = segment_pairs(sentence_lengths, data.length, data.short_rate, walk_rng)
        if number < len(pairs):
            return pairs[number]
        number -= len(pairs)


def truncate_pair(
    tokens_a: NDArray[np.int32], tokens_b: NDArray[np.int32], capacity: int, rng: random.Random
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns the segments cut to `capacity` tokens together.

    BERT removes one token at a time from the longer segment (from B when they are equal), each from
    the front or the back by a coin; this draws all the coins at once.
    """
    length_a, length_b = len(tokens_a), len(tokens_b)
    if length_a + length_b <= capacity:
        return tokens_a, tokens_b
    keep_b = min(length_b, max(capacity // 2, capacity - length_a))
    kept_a = _drop_ends(tokens_a, length_a - (capacity - keep_b), rng)
    return kept_a, _drop_ends(tokens_b, length_b - keep_b, rng)


def _below(rng: random.Random, count: int) -> int:
    """A uniform integer in [0, count). `random()` is the one draw that Python promises to keep."""
    return int(rng.random() * count)


def _generator(key: Key, number: int, purpose: int) -> random.Random:
    # Seeding Python's generator takes a third of the time of NumPy's, per example a visible sum.
    return random.Random(struct.pack("<5q", *key, number, purpose))


def _sentence_borders(sentence_lengths: list[int], capacity: int) -> list[int]:
    """Token offsets at which a segment may begin or end, from 0 to the document's length.

    A sentence that fits no example is cut into equal pieces of at most half an example: whole, it
    would be an A that truncation leaves a part of, and never half of a true pair.
    """
    if max(sentence_lengths) > capacity:
        cut: list[int] = []
        for length in sentence_lengths:
            pieces = -(-length // (capacity // 2)) if length > capacity else 1
            cut += [length * (i + 1) // pieces - length * i // pieces for i in range(pieces)]
        sentence_lengths = cut
    return list(accumulate(sentence_lengths, initial=0))


def _other_document(numbers: NDArray[np.int64], record: int, rng: random.Random) -> int:
    """A random record that is not part of the document that `record` is part of."""
    first, end = np.searchsorted(numbers, [numbers[record], numbers[record] + 1]).tolist()
    return (end + _below(rng, len(numbers) - (end - first))) % len(numbers)


def _random_segment(
    document: tuple[NDArray[np.int32], NDArray[np.int32]], target: int, rng: random.Random
) -> NDArray[np.int32]:
    """Whole sentences from a random one on, at least one, until there are `target` tokens."""
    tokens, sentence_lengths = document
    ends = np.cumsum(sentence_lengths)
    first = _below(rng, len(ends))
    start = int(ends[first] - sentence_lengths[first])
    last = min(max(int(np.searchsorted(ends, start + target)), first), len(ends) - 1)
    return tokens[start : ends[last]]


def _drop_ends(tokens: NDArray[np.int32], count: int, rng: random.Random) -> NDArray[np.int32]:
    if not count:
        return tokens
    front = rng.getrandbits(count).bit_count()
    return tokens[front : len(tokens) - (count - front)]


def _arrays(
    tokens_a: NDArray[np.int32],
    tokens_b: NDArray[np.int32],
    random_next: bool,
    data: config.Data,
    vocabulary: Vocabulary,
    rng: random.Random,
) -> dict[str, NDArray]:
    length_a = len(tokens_a)
    used = length_a + len(tokens_b) + SPECIAL_TOKENS
    input_ids = np.full(data.length, vocabulary.pad, np.int32)
    input_ids[0] = vocabulary.cls
    input_ids[1 : length_a + 1] = tokens_a
    input_ids[length_a + 1] = vocabulary.sep
    input_ids[length_a + 2 : used - 1] = tokens_b
    input_ids[used - 1] = vocabulary.sep
    input_mask = np.zeros(data.length, np.int32)
    input_mask[:used] = 1
    segment_ids = np.zeros(data.length, np.int32)
    segment_ids[length_a + 2 : used] = 1

    room = min(data.max_predictions, max(1, round((used - SPECIAL_TOKENS) * data.mask_rate)))
    if data.whole_words:
        text = np.concatenate([tokens_a, tokens_b])
        begins_word = vocabulary.starts_word_V[text]
        begins_word[[0, length_a]] = True  # truncation may have cut a word's first piece away
        chosen = _choose_words(begins_word, room, data.max_predictions, rng)
    else:
        chosen = np.sort(_random_order(used - SPECIAL_TOKENS, rng)[:room])
    positions = chosen + 1 + (chosen >= length_a)
    originals = input_ids[positions]
    input_ids[positions] = _replacements(originals.tolist(), vocabulary, rng)
    return {
        "input_ids": input_ids,
        "input_mask": input_mask,
        "segment_ids": segment_ids,
        "masked_lm_positions": _padded(positions, data.max_predictions, np.int32),
        "masked_lm_ids": _padded(originals, data.max_predictions, np.int32),
        "masked_lm_weights": _padded(np.ones(len(positions)), data.max_predictions, np.float32),
        "next_sentence_labels": np.array(random_next, np.int32),
    }


def _padded(values: NDArray, count: int, dtype: type[np.generic]) -> NDArray:
    padded = np.zeros(count, dtype)
    padded[: len(values)] = values
    return padded


def _random_order(count: int, rng: random.Random) -> NDArray[np.int64]:
    """The integers below `count`, shuffled."""
    return np.frombuffer(rng.randbytes(8 * count), "<u8").argsort()


def _choose_words(
    begins_word: NDArray[np.bool_], room: int, most: int, rng: random.Random
) -> NDArray[np.int64]:
    """Offsets, ascending, of whole words taken in random order as long as they fit in `room`.

    When not one fits, the shortest is taken, since an example without a prediction teaches nothing;
    only then, and only if it has more than `most` pieces, is a word predicted in part.
    """
    word = np.cumsum(begins_word) - 1
    sizes = np.bincount(word).tolist()
    order = _random_order(len(sizes), rng).tolist()
    taken = np.zeros(len(sizes), bool)
    left = room
    for candidate in order:
        if sizes[candidate] <= left:
            taken[candidate] = True
            left -= sizes[candidate]
            if not left:
                break
    if left == room:
        taken[min(order, key=sizes.__getitem__)] = True
    return np.flatnonzero(taken[word])[:most]


def _replacements(originals: list[int], vocabulary: Vocabulary, rng: random.Random) -> list[int]:
    """What stands in the input for each predicted token: 80 % mask, 10 % itself, 10 % random."""
    ordinary = vocabulary.ordinary
    replaced = []
    for original in originals:
        fate = rng.random()
        if fate < MASKED_SHARE:
            replaced.append(vocabulary.mask)
        elif fate < MASKED_SHARE + KEPT_SHARE:
            replaced.append(original)
        else:
            replaced.append(int(ordinary[_below(rng, len(ordinary))]))
    return replaced
