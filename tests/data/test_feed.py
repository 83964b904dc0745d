"""The stream of batches: a function of the step alone, and its background thread."""

import itertools
import threading
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilebert_jax.config import schema
from mobilebert_jax.data.feed import Feed
from mobilebert_jax.data.masking import Vocabulary
from tests.data.list_documents import SPECIALS, ListDocuments

SIZE = 4000
VOCABULARY = Vocabulary(
    0,
    2,
    3,
    4,
    ordinary=np.arange(SPECIALS, SIZE, dtype=np.int32),
    starts_word_V=np.ones(SIZE, bool),
)
DATA = schema.Data(max_seq_length=24, max_predictions_per_seq=4)


class BrokenDocuments(ListDocuments):
    """Documents that can be read a number of times only."""

    def __init__(self, sentence_lengths, good_reads):
        super().__init__(sentence_lengths)
        self._good_reads = good_reads

    def __getitem__(self, index):
        if self.reads >= self._good_reads:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def some_documents(**settings):
    return ListDocuments([[7, 3, 12], [40], [5] * 12, [9, 9, 9, 9], [2, 30, 4]], **settings)


def feed_of(documents=None, *, batch_size=6, seed=0, rows=None, data=DATA):
    documents = documents if isinstance(documents, list) else [documents or some_documents()]
    return Feed(documents, VOCABULARY, data, batch_size=batch_size, seed=seed, rows=rows)


def same(batch, other):
    return batch.keys() == other.keys() and all((batch[n] == other[n]).all() for n in batch)


def tokens_of_a(batch):
    """For each row its first token of A, before masking."""
    ids = batch["input_ids"].copy()
    for row, weights in enumerate(batch["masked_lm_weights"]):
        count = int(weights.sum())
        ids[row, batch["masked_lm_positions"][row, :count]] = batch["masked_lm_ids"][row, :count]
    return ids[:, 1]


def feed_threads():
    return [t for t in threading.enumerate() if t.name.startswith("feed")]


# --- order ---------------------------------------------------------------------------------------


def test_shapes_of_a_batch():
    shapes = {name: array.shape for name, array in feed_of()[3].items()}
    assert shapes == {
        "input_ids": (6, 24),
        "input_mask": (6, 24),
        "segment_ids": (6, 24),
        "masked_lm_positions": (6, 4),
        "masked_lm_ids": (6, 4),
        "masked_lm_weights": (6, 4),
        "next_sentence_labels": (6,),
    }


@given(st.integers(0, 10**12), st.integers(0, 2**31), st.booleans())
@settings(max_examples=12)
def test_a_batch_is_a_function_of_seed_and_step(step, seed, two_sources):
    def build():
        second = [some_documents(weight=0.5, first_token=500)] if two_sources else []
        return feed_of([some_documents(), *second], seed=seed)

    used = build()
    for earlier in (7, 0, step + 1):
        used[earlier]
    assert same(used[step], build()[step])


@given(st.integers(1, 12), st.sets(st.integers(1, 11)), st.integers(0, 1000))
@settings(max_examples=15)
def test_rows_of_all_hosts_together_are_the_batch(batch_size, cuts, step):
    borders = [0, *sorted(c for c in cuts if c < batch_size), batch_size]
    parts = [
        feed_of(batch_size=batch_size, rows=range(begin, end))[step]
        for begin, end in itertools.pairwise(borders)
    ]
    whole = feed_of(batch_size=batch_size)[step]
    assert same(whole, {name: np.concatenate([p[name] for p in parts]) for name in whole})


def test_the_stream_does_not_depend_on_the_batch_size():
    threes, sixes = feed_of(batch_size=3), feed_of(batch_size=6)
    joined = {n: np.concatenate([threes[8][n], threes[9][n]]) for n in threes[0]}
    assert same(sixes[4], joined)


def test_seeds_give_other_orders_and_other_masks():
    def orders(seed):
        feed = feed_of(ListDocuments([[8, 8]] * 40), batch_size=40, seed=seed)
        return {tuple(tokens_of_a(feed[epoch])) for epoch in range(4)}

    found = [orders(seed) for seed in range(4)]
    # Not even another epoch of a neighbouring seed has the same order.
    assert len(set.union(*found)) == 16
    assert not same(feed_of(seed=0)[0], feed_of(seed=1)[0])


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=6), min_size=2, max_size=12))
@settings(max_examples=15)
def test_every_epoch_has_each_document_as_often_as_it_counts(sentence_lengths):
    documents = ListDocuments(sentence_lengths)
    size = feed_of(documents).epoch_sizes[0]
    feed = feed_of(documents, batch_size=size)
    expected = {
        d: max(1, int(4 * n / (3 * 21) + 0.5)) for d, n in enumerate(documents.token_counts)
    }
    for epoch in range(3):
        firsts = tokens_of_a(feed[epoch])
        seen = Counter((np.searchsorted(documents.firsts, firsts, side="right") - 1).tolist())
        assert seen == expected


def test_epochs_differ_in_order_and_masks():
    feed = feed_of(ListDocuments([[10, 10]] * 30), batch_size=30)
    orders = [tuple(tokens_of_a(feed[epoch]) // 20) for epoch in range(5)]
    assert len(set(orders)) == 5
    one_document = [
        {tuple(ids) for ids, first in zip(feed[e]["input_ids"], tokens_of_a(feed[e]), strict=True)}
        for e in range(5)
    ]
    assert not set.intersection(*one_document)


def test_sources_are_mixed_by_weight_and_keep_their_own_epochs():
    small = ListDocuments([[10, 9]] * 10, weight=0.75)
    large = ListDocuments([[10, 9]] * 50, weight=0.25, first_token=1000)
    feed = feed_of([small, large], batch_size=40)
    firsts = np.concatenate([tokens_of_a(feed[step]) for step in range(5)])
    assert (firsts < 1000).sum() == 150
    for source, first_token in ((small, SPECIALS), (large, 1000)):
        mine = firsts[(firsts < 1000) == (source is small)]
        assert Counter(((mine - first_token) // 19).tolist()) == dict.fromkeys(
            range(len(source)), len(mine) // len(source)
        )


# --- in the background ---------------------------------------------------------------------------


@given(st.integers(0, 50), st.integers(0, 9), st.integers(1, 12))
@settings(max_examples=12)
def test_iterating_is_indexing(start, count, prefetch):
    feed = feed_of(batch_size=2)
    batches = list(feed.iterate(start, start + count, prefetch))
    assert len(batches) == count
    assert all(same(batch, feed[start + i]) for i, batch in enumerate(batches))
    assert not feed_threads()


def test_batches_are_made_ahead_but_not_further_than_asked():
    documents = ListDocuments([[40, 1]] * 4)
    data = schema.Data(max_seq_length=24, max_predictions_per_seq=4, short_seq_prob=0.0)
    reference = ListDocuments([[40, 1]] * 4)
    for step in range(5):
        feed_of(reference, data=data)[step]
    iterator = feed_of(documents, data=data).iterate(0, 100, prefetch=4)
    next(iterator)
    deadline = time.monotonic() + 10
    while documents.reads < reference.reads and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert documents.reads == reference.reads
    iterator.close()


def test_stopping_early_ends_the_thread():
    documents = some_documents()
    iterator = feed_of(documents).iterate(0, 10**9, prefetch=8)
    next(iterator)
    assert len(feed_threads()) == 1
    iterator.close()
    assert not feed_threads()
    reads = documents.reads
    time.sleep(0.05)
    assert documents.reads == reads


def test_an_error_in_the_consumer_ends_the_thread():
    with pytest.raises(ZeroDivisionError):
        for _ in feed_of().iterate(0, 10**9, prefetch=2):
            raise ZeroDivisionError
    assert not feed_threads()


def test_an_error_while_reading_is_raised_at_its_step():
    lengths = [[10, 10]] * 5
    whole = feed_of(ListDocuments(lengths))
    counted = ListDocuments(lengths)
    feed = feed_of(counted)
    for step in range(3):
        feed[step]
    iterator = feed_of(BrokenDocuments(lengths, counted.reads)).iterate(0, 10, prefetch=4)
    for step in range(3):
        assert same(next(iterator), whole[step])
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)
    assert not feed_threads()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"documents": []}, "no documents"),
        ({"documents": ListDocuments([[5]])}, "at least 2 are needed"),
        ({"documents": ListDocuments([[5], [0]])}, "at least 1 for each"),
        ({"documents": some_documents(weight=0.0)}, "above 0"),
        ({"documents": ListDocuments([[2**31 - 1] * 60] * 2)}, "several sources"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"rows": range(4, 8)}, "of 6"),
        ({"rows": []}, "are not rows of a batch"),
    ],
)
def test_what_cannot_feed_is_refused(arguments, message):
    with pytest.raises(schema.InputError, match=message):
        feed_of(**arguments)


def test_a_negative_step_and_no_prefetch_are_refused():
    with pytest.raises(IndexError, match="-1"):
        feed_of()[-1]
    with pytest.raises(ValueError, match="prefetch=0"):
        next(feed_of().iterate(0, 1, prefetch=0))
