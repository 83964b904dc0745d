"""BERT's walk over a document, random second segments, and truncation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilebert_jax.data import counter_rng, pairs

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)
SEEDS = st.integers(0, 2**32)


def walked(sentence_lengths, length, short_seq_prob, seed, count):
    """The first `count` pairs of one document."""
    lengths = np.array(sentence_lengths, np.int32)
    stream = np.repeat(counter_rng.streams(seed), count)
    found = pairs.nth_pairs([lengths] * count, np.arange(count), stream, length, short_seq_prob)
    return [pairs.Pairs(*row) for row in zip(*(array.tolist() for array in found), strict=True)]


def one_walk(sentence_lengths, length, short_seq_prob, seed):
    """The pairs up to the end of the document."""
    room = length - 3
    pieces = sum(-(-n // (room // 2)) if n > room else 1 for n in sentence_lengths)
    found = walked(sentence_lengths, length, short_seq_prob, seed, pieces)
    end = next(i for i, pair in enumerate(found) if pair.stop == sum(sentence_lengths))
    return found[: end + 1]


def bert_walk(sentence_lengths, length, short_seq_prob, seed, walk=0, drawn=0):
    """The loop over sentences as BERT describes it, gathering one sentence at a time.

    `drawn` pairs of earlier walks have used up as many choices.
    """

    def choice(kind, number):
        return float(
            counter_rng.uniform(counter_rng.streams(counter_rng.streams(seed), kind), number)[0]
        )

    capacity = length - 3
    target = capacity
    if choice(pairs._SHORT, walk) < short_seq_prob:
        target = 2 + int(choice(pairs._TARGET, walk) * (capacity - 1))
    found, gathered, i = [], [], 0
    while i < len(sentence_lengths):
        gathered.append(i)
        total = sum(sentence_lengths[j] for j in gathered)
        if i == len(sentence_lengths) - 1 or total >= target:
            number = drawn + len(found)
            size_a = 1
            if len(gathered) > 1:
                size_a += int(choice(pairs._CUTS, number) * (len(gathered) - 1))
            is_random = len(gathered) == 1 or choice(pairs._COINS, number) < 0.5
            if is_random:
                i -= len(gathered) - size_a
            found.append((gathered[:size_a], [] if is_random else gathered[size_a:], target))
            gathered = []
        i += 1
    return found


@given(LENGTHS, st.sampled_from([16, 64, 320]), st.floats(0, 1), SEEDS)
def test_walks_are_berts(sentence_lengths, length, short_seq_prob, seed):
    sentence_lengths = [min(n, length - 3) for n in sentence_lengths]
    offsets = [0, *np.cumsum(sentence_lengths).tolist()]
    expected = bert_walk(sentence_lengths, length, short_seq_prob, seed)
    expected += bert_walk(sentence_lengths, length, short_seq_prob, seed, 1, len(expected))
    found = walked(sentence_lengths, length, short_seq_prob, seed, len(expected))
    for pair, (in_a, in_b, target) in zip(found, expected, strict=True):
        assert (pair.start, pair.middle) == (offsets[in_a[0]], offsets[in_a[-1] + 1])
        assert pair.stop == offsets[(in_b or in_a)[-1] + 1]
        assert pair.target == target


@given(LENGTHS, st.integers(8, 160), st.floats(0, 1), SEEDS)
def test_a_walk_loses_no_token(sentence_lengths, length, short_seq_prob, seed):
    found = one_walk(sentence_lengths, length, short_seq_prob, seed)
    assert [p.start for p in found] == [0, *(p.stop for p in found[:-1])]
    assert found[-1].stop == sum(sentence_lengths)
    assert all(p.start < p.middle <= p.stop for p in found)
    assert len({p.target for p in found}) == 1
    assert 2 <= found[0].target <= length - 3


@given(st.lists(LENGTHS, min_size=1, max_size=6), st.integers(0, 30), SEEDS)
def test_a_pair_does_not_depend_on_the_others_of_its_batch(documents, number, seed):
    lengths = [np.array(document, np.int32) for document in documents]
    numbers = (number + 3 * np.arange(len(lengths))) % 31
    streams = counter_rng.streams(seed, np.arange(len(lengths)))
    together = pairs.nth_pairs(lengths, numbers, streams, 64, 0.3)
    for row in range(len(lengths)):
        one = slice(row, row + 1)
        alone = pairs.nth_pairs(lengths[one], numbers[one], streams[one], 64, 0.3)
        assert [a[0] for a in alone] == [a[row] for a in together]


def test_a_sentence_longer_than_an_example_is_cut_into_pairs():
    seen = [p for seed in range(10) for p in one_walk([5, 1000, 5], 128, 0.0, seed)]
    assert max(p.stop - p.start for p in seen) <= 125 + 62
    assert {p.middle == p.stop for p in seen} == {False, True}


def test_half_of_the_pairs_are_random_and_a_tenth_of_the_walks_short():
    lengths = [10] * 60
    walks = [one_walk(lengths, 128, 0.0, seed) for seed in range(1000)]
    # A pair that begins at the last sentence has no choice.
    choices = [p.middle == p.stop for walk in walks for p in walk if p.start < 590]
    assert len(choices) > 4000
    assert np.mean(choices) == pytest.approx(0.5, abs=5 * 0.5 / len(choices) ** 0.5)

    documents = [np.array(lengths, np.int32)] * 5000
    streams = counter_rng.streams(0, np.arange(5000))
    targets = pairs.nth_pairs(documents, np.zeros(5000, int), streams, 128, 0.1).target
    short = targets[targets < 125]
    # One of the 124 random lengths, the largest, is not short.
    assert len(short) / 5000 == pytest.approx(0.1 * 123 / 124, abs=5 * (0.09 / 5000) ** 0.5)
    assert short.min() < 10 and short.max() > 118
    assert short.mean() == pytest.approx(63, abs=5 * 36 / len(short) ** 0.5)


@given(LENGTHS, st.integers(8, 600))
def test_a_document_counts_for_examples_of_three_quarters_of_the_length(token_counts, length):
    starts = pairs.example_starts(np.array(token_counts), length)
    counts = np.diff(starts)
    assert starts[0] == 0 and counts.min() >= 1
    used = 0.75 * (length - 3)
    assert (np.abs(counts * used - token_counts)[counts > 1] <= used / 2 + 1e-9).all()


# --- random second segments ----------------------------------------------------------------------


def test_a_random_segment_is_never_of_a_part_of_the_same_document():
    numbers = np.array([0, 0, 0, 1, 2, 2])
    for record in range(6):
        streams = counter_rng.streams(record, np.arange(300))
        drawn = pairs.other_records(numbers, np.full(300, record), streams)
        assert set(drawn.tolist()) == {r for r in range(6) if numbers[r] != numbers[record]}


@given(st.lists(LENGTHS, min_size=1, max_size=5), st.integers(0, 200), SEEDS)
def test_random_segments_are_whole_sentences_up_to_the_target(documents, target, seed):
    lengths = [np.array(document, np.int32) for document in documents]
    streams = counter_rng.streams(seed, np.arange(len(lengths)))
    targets = np.full(len(lengths), target)
    for own, begin, end in zip(
        documents, *pairs.random_segments(lengths, targets, streams), strict=True
    ):
        borders = [0, *np.cumsum(own).tolist()]
        first, last = borders.index(begin), borders.index(end)
        assert first < last
        # Without its last sentence it was too short, or had none.
        assert last - first == 1 or borders[last - 1] - begin < target
        assert end - begin >= target or last == len(own)


def test_random_segments_begin_at_every_sentence():
    lengths = [np.array([3, 1, 2], np.int32)] * 300
    streams = counter_rng.streams(0, np.arange(300))
    begin, _ = pairs.random_segments(lengths, np.ones(300, int), streams)
    assert set(begin.tolist()) == {0, 3, 4}


# --- truncation ----------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 200), st.integers(5, 200), SEEDS)
def test_truncation_takes_from_the_longer(length_a, length_b, capacity, seed):
    expected_a, expected_b = length_a, length_b
    while expected_a + expected_b > capacity:
        if expected_a > expected_b:
            expected_a -= 1
        else:
            expected_b -= 1
    counts = np.array([length_a]), np.array([length_b])
    a, b = pairs.truncate(*counts, capacity, counter_rng.streams(seed))
    assert (a.size[0], b.size[0]) == (expected_a, expected_b)
    assert a.first[0] >= 0 and a.first[0] + expected_a <= length_a
    assert b.first[0] >= 0 and b.first[0] + expected_b <= length_b


def test_truncation_drops_from_both_ends_alike():
    counts = np.full(2000, 164), np.full(2000, 1)
    dropped = pairs.truncate(*counts, 65, counter_rng.streams(0, np.arange(2000)))[0].first
    assert dropped.mean() == pytest.approx(50, abs=5 * 5 / 2000**0.5)
    assert dropped.std() == pytest.approx(5, rel=0.1)
