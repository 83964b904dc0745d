"""Pairs of segments cut from documents, for many examples at once.

This is BERT's recipe (Devlin et al. 2019, appendix A.1; its released `create_pretraining_data.py`):
a walk over a document gathers sentences into pairs, of which half get their second segment from
another document. Every random choice is a function of the document, or of the example, and of
numbers, so that any pair of any epoch can be cut without those before it.

Shapes: B examples, N all sentences of their documents, R records, D documents.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.data import counter_rng
from mobilebert_jax.data.counter_rng import Streams

SPECIAL_TOKENS = 3
"""[CLS] A [SEP] B [SEP]."""

Integers = NDArray[np.int64]
Lengths = Sequence[NDArray[np.int32]]
"""The lengths of each document's sentences, all at least 1."""

_SHORT, _TARGET, _CUTS, _COINS = range(4)
"""Kinds of choices on a walk."""


class Pairs(NamedTuple):
    """[B] token offsets in documents: A is [start, middle), B is [middle, stop)."""

    start: Integers
    middle: Integers
    stop: Integers
    """Equal to `middle` when B is to come from another document."""
    target: Integers
    """Tokens wanted in both segments together."""


class Kept(NamedTuple):
    """[B] what truncation leaves of segments: `size` tokens from `first` on."""

    first: Integers
    size: Integers


def examples_of(token_counts: Integers, length: int) -> Integers:
    """Returns how many examples of `length` tokens each document counts for in an epoch.

    It is about the number of pairs of a walk, of which half use half of what they gathered, and
    at least 1. The true number is random, and the size of an epoch must be fixed.
    """
    capacity = length - SPECIAL_TOKENS
    return np.maximum(1, (4 * token_counts + 3 * capacity // 2) // (3 * capacity))


def example_starts(token_counts: Integers, length: int) -> Integers:
    """Returns starts[D + 1]: document d has the examples starts[d] to starts[d + 1] of an epoch."""
    starts = np.zeros(len(token_counts) + 1, np.int64)
    np.cumsum(examples_of(token_counts, length), out=starts[1:])
    return starts


def nth_pairs(
    sentence_lengths: Lengths,
    number_B: Integers,
    walks_B: Streams,
    length: int,
    short_seq_prob: float,
) -> Pairs:
    """Returns pair `number_B` of each document's walks, one walk after the other.

    As in BERT: sentences are gathered until they reach the target length or the document ends, A is
    a random number of them, and B is the others or, half of the time and whenever there are no
    others, comes from another document; then the unused sentences are gathered again. Every token
    of the document is in an A or in a true B. The target is the room in an example, or with
    probability `short_seq_prob` a random shorter length, for the whole walk.

    Every example of a document (of a stream in `walks_B`) sees the same walks, so that together
    they cover it. Choosing in proportion to a walk's number of pairs would favour true pairs, for
    they make a walk short.
    """
    capacity = length - SPECIAL_TOKENS
    border_N, first, last = _borders(sentence_lengths, capacity)
    found = np.zeros((4, len(first)), np.int64)
    cut_BN, coin_BN, drawn = _choices(number_B, walks_B)
    rows, at, walk = np.arange(len(first)), first.copy(), np.zeros(len(first), np.int64)
    target = _targets(walks_B, walk, capacity, short_seq_prob)
    number = 0
    while len(rows):
        start = border_N[at]
        middle = at + 1
        end = np.clip(np.searchsorted(border_N, start + target), middle, last)
        middle += (cut_BN[drawn + number] * (end - middle)).astype(np.int64)
        end = np.where(coin_BN[drawn + number] < 0.5, middle, end)
        here = number_B[rows] == number
        if here.any():
            text = border_N[first[here]]
            cut = border_N[middle[here]], border_N[end[here]]
            found[:, rows[here]] = start[here] - text, cut[0] - text, cut[1] - text, target[here]
            left = ~here
            rows, end, first, last = rows[left], end[left], first[left], last[left]
            walk, target, drawn = walk[left], target[left], drawn[left]
        at = end
        over = np.flatnonzero(at == last)
        if len(over):
            at[over] = first[over]
            walk[over] += 1
            target[over] = _targets(walks_B[rows[over]], walk[over], capacity, short_seq_prob)
        number += 1
    return Pairs(*found)


def other_records(numbers_R: Integers, record_B: Integers, streams_B: Streams) -> Integers:
    """Returns a random record that is not part of the document that each record is part of."""
    number = numbers_R[record_B]
    first, end = np.searchsorted(numbers_R, number), np.searchsorted(numbers_R, number, "right")
    others = len(numbers_R) - (end - first)
    return (end + counter_rng.below(streams_B, 0, others)) % len(numbers_R)


def random_segments(
    sentence_lengths: Lengths, target_B: Integers, streams_B: Streams
) -> tuple[Integers, Integers]:
    """Returns where segments of whole sentences begin and end in their documents.

    Each begins at a random sentence and holds at least one, and more until there are `target_B`
    tokens or the document ends.
    """
    border_N, first, last = _borders(sentence_lengths, None)
    begin = first + counter_rng.below(streams_B, 0, last - first)
    start = border_N[begin]
    end = np.clip(np.searchsorted(border_N, start + target_B), begin + 1, last)
    return start - border_N[first], border_N[end] - border_N[first]


def truncate(
    count_a_B: Integers, count_b_B: Integers, capacity: int, streams_B: Streams
) -> tuple[Kept, Kept]:
    """Returns what is left of segments of so many tokens, cut to `capacity` tokens together.

    BERT removes one token at a time from the longer segment (from B when they are equal), each from
    the front or the back by a coin; this draws all the coins at once.
    """
    keep_b = np.minimum(count_b_B, np.maximum(capacity // 2, capacity - count_a_B))
    keep_a = np.minimum(count_a_B, capacity - keep_b)
    first_a = counter_rng.heads(counter_rng.streams(streams_B, 0), count_a_B - keep_a)
    first_b = counter_rng.heads(counter_rng.streams(streams_B, 1), count_b_B - keep_b)
    return Kept(first_a, keep_a), Kept(first_b, keep_b)


def _borders(
    sentence_lengths: Lengths, capacity: int | None
) -> tuple[Integers, Integers, Integers]:
    """Returns offsets at which segments may begin or end, of all documents one after the other, and
    the indices of each document's first and last one.

    A sentence that fits no example is cut into equal pieces of at most half an example: whole, it
    would be an A that truncation leaves a part of, and never half of a true pair.
    """
    length_N = np.concatenate(sentence_lengths).astype(np.int64)
    last = np.cumsum([len(lengths) for lengths in sentence_lengths])
    if capacity is not None and np.max(length_N) > capacity:
        pieces_N = np.where(length_N > capacity, -(-length_N // (capacity // 2)), 1)
        ends_N = np.cumsum(pieces_N)
        piece = np.arange(ends_N[-1]) - np.repeat(ends_N - pieces_N, pieces_N)
        whole, pieces = np.repeat(length_N, pieces_N), np.repeat(pieces_N, pieces_N)
        length_N = whole * (piece + 1) // pieces - whole * piece // pieces
        last = ends_N[last - 1]
    border_N = np.concatenate([[0], np.cumsum(length_N)])
    return border_N, np.concatenate([[0], last[:-1]]), last


def _choices(
    number_B: Integers, walks_B: Streams
) -> tuple[NDArray[np.float64], NDArray[np.float64], Integers]:
    """Returns the choices for pairs 0 to `number_B` of each row, one row after the other, and where
    each row's begin."""
    counts = number_B + 1
    begin = np.cumsum(counts) - counts
    number = np.arange(int(counts.sum())) - np.repeat(begin, counts)
    cuts, coins = counter_rng.streams(walks_B, _CUTS), counter_rng.streams(walks_B, _COINS)
    cut = counter_rng.uniform(np.repeat(cuts, counts), number)
    return cut, counter_rng.uniform(np.repeat(coins, counts), number), begin


def _targets(streams: Streams, walk: Integers, capacity: int, short_seq_prob: float) -> Integers:
    short = counter_rng.uniform(counter_rng.streams(streams, _SHORT), walk) < short_seq_prob
    shorter = 2 + counter_rng.below(counter_rng.streams(streams, _TARGET), walk, capacity - 1)
    return np.where(short, shorter, capacity)
