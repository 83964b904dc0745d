"""BERT's pairs and masks: what must hold of every example, and of many together."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilebert_jax.config import schema
from mobilebert_jax.data import counter_rng, masking, pairs, pretraining
from mobilebert_jax.data.masking import Vocabulary
from tests.data.list_documents import CLS, MASK, PAD, SEP, SPECIALS, ListDocuments

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


def vocabulary_of(size, starts_word_V=None):
    if starts_word_V is None:
        starts_word_V = np.ones(size, bool)
    ordinary = np.arange(SPECIALS, size, dtype=np.int32)
    return Vocabulary(PAD, CLS, SEP, MASK, ordinary, starts_word_V)


def examples(documents, indices, epochs, data, vocabulary=None, seed=0, source=0):
    starts = pairs.example_starts(documents.token_counts, data.max_seq_length)
    vocabulary = vocabulary or vocabulary_of(documents.vocabulary_size)
    return pretraining.examples(
        documents,
        starts,
        np.asarray(indices),
        np.asarray(epochs),
        seed=seed,
        source=source,
        data=data,
        vocabulary=vocabulary,
    )


def example(documents, index, data, vocabulary=None, *, epoch=0, **name):
    found = examples(documents, [index], [epoch], data, vocabulary, **name)
    return {name: array[0] for name, array in found.items()}


def all_examples(documents, data, epochs):
    """Every example of so many epochs."""
    total = int(pairs.example_starts(documents.token_counts, data.max_seq_length)[-1])
    found = [
        examples(documents, np.arange(total), np.full(total, epoch), data)
        for epoch in range(epochs)
    ]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def restored(found):
    """The input before masking."""
    count = int(found["masked_lm_weights"].sum())
    ids = found["input_ids"].copy()
    ids[found["masked_lm_positions"][:count]] = found["masked_lm_ids"][:count]
    return ids


def segments(found):
    """The tokens of A and B before masking, without special tokens."""
    ids, mask, segment = restored(found), found["input_mask"] == 1, found["segment_ids"]
    return ids[mask & (segment == 0)][1:-1], ids[mask & (segment == 1)][:-1]


# --- next sentences ----------------------------------------------------------------------------


def test_half_of_the_pairs_of_short_documents_are_random():
    """A walk that begins with a true pair ends sooner; that must not make true pairs likelier."""
    documents = ListDocuments([[6, 6, 6]] * 50)
    data = schema.Data(max_seq_length=64, max_predictions_per_seq=9, short_seq_prob=0.0)
    labels = all_examples(documents, data, 40)["next_sentence_labels"]
    assert len(labels) == 2000
    assert np.mean(labels) == pytest.approx(0.5, abs=5 * 0.5 / len(labels) ** 0.5)


# --- one example ---------------------------------------------------------------------------------

CORPORA = st.lists(LENGTHS, min_size=2, max_size=5).map(ListDocuments)
DATA = st.builds(
    schema.Data,
    max_seq_length=st.integers(8, 140),
    max_predictions_per_seq=st.integers(1, 8),
    masked_lm_prob=st.floats(0, 1),
    short_seq_prob=st.floats(0, 1),
    whole_word_mask=st.booleans(),
)


@given(CORPORA, DATA, st.integers(0, 10**6), st.integers(0, 2**40))
@settings(max_examples=200)
def test_layout_and_segments(documents, data, draw, seed):
    starts = pairs.example_starts(documents.token_counts, data.max_seq_length)
    index = draw % int(starts[-1])
    found = example(documents, index, data, seed=seed)
    used = int(found["input_mask"].sum())
    a, b = segments(found)
    assert len(a) >= 1 and len(b) >= 1 and used == len(a) + len(b) + 3 <= data.max_seq_length
    ids = restored(found)
    separators = [len(a) + 1, used - 1]
    assert ids[0] == CLS and np.flatnonzero(ids == SEP).tolist() == separators
    assert (ids[used:] == PAD).all() and (ids == PAD).sum() == data.max_seq_length - used
    expected_segment = np.zeros(data.max_seq_length)
    expected_segment[len(a) + 2 : used] = 1
    assert (found["segment_ids"] == expected_segment).all()
    assert (found["input_mask"] == (np.arange(data.max_seq_length) < used)).all()

    assert (np.diff(a) == 1).all() and (np.diff(b) == 1).all()
    own = int(np.searchsorted(starts, index, side="right")) - 1
    of_a = {documents.document_of(t) for t in a}
    of_b = {documents.document_of(t) for t in b}
    assert of_a == {own}
    if found["next_sentence_labels"]:
        assert len(of_b) == 1 and of_b != of_a
    else:
        assert of_b == of_a and b[0] > a[-1]


@given(CORPORA, DATA, st.integers(0, 2**40))
@settings(max_examples=200)
def test_predictions(documents, data, seed):
    found = example(documents, 0, data, seed=seed)
    used, weights = int(found["input_mask"].sum()), found["masked_lm_weights"]
    count = int(weights.sum())
    assert (weights == (np.arange(data.max_predictions_per_seq) < count)).all()
    wanted = min(data.max_predictions_per_seq, max(1, round((used - 3) * data.masked_lm_prob)))
    assert count == wanted  # every piece is a word of its own here
    positions = found["masked_lm_positions"]
    assert (positions[count:] == 0).all() and (found["masked_lm_ids"][count:] == 0).all()
    assert (np.diff(positions[:count]) > 0).all()
    a, _ = segments(found)
    assert not set(positions[:count]) & {0, len(a) + 1, used - 1}
    assert (positions[:count] < used).all()
    # Labels are the original tokens: with them put back, both segments are runs of a document.
    assert (np.diff(restored(found)[1 : len(a) + 1]) == 1).all()
    changed = np.flatnonzero(restored(found) != found["input_ids"])
    assert set(changed) <= set(positions[:count])


def test_types_and_shapes():
    documents = ListDocuments([[9, 9, 9], [9, 9]])
    found = example(documents, 0, schema.Data(max_seq_length=32, max_predictions_per_seq=5))
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        "input_ids": ((32,), "int32"),
        "input_mask": ((32,), "int32"),
        "segment_ids": ((32,), "int32"),
        "masked_lm_positions": ((5,), "int32"),
        "masked_lm_ids": ((5,), "int32"),
        "masked_lm_weights": ((5,), "float32"),
        "next_sentence_labels": ((), "int32"),
    }


@given(CORPORA, DATA, st.integers(0, 2**40))
def test_an_example_is_a_function_of_its_arguments(documents, data, seed):
    first, again = (example(documents, 0, data, seed=seed, source=1, epoch=2) for _ in range(2))
    assert all((first[name] == again[name]).all() for name in first)


def test_every_part_of_the_key_matters():
    documents = ListDocuments([[9] * 200] * 3)
    names = [{}, {"seed": 1}, {"source": 1}, {"epoch": 1}, {"seed": -1}]
    found = {example(documents, 0, schema.Data(), **name)["input_ids"].tobytes() for name in names}
    assert len(found) == len(names)


@given(CORPORA, DATA, st.integers(0, 2**40))
def test_an_example_does_not_depend_on_the_others_of_its_batch(documents, data, seed):
    total = int(pairs.example_starts(documents.token_counts, data.max_seq_length)[-1])
    indices, epochs = np.arange(7) * 5 % total, np.arange(7) % 3
    together = examples(documents, indices, epochs, data, seed=seed)
    for row in range(7):
        alone = example(documents, indices[row], data, seed=seed, epoch=epochs[row])
        assert all((alone[name] == together[name][row]).all() for name in alone)


def test_the_same_examples_everywhere():
    documents = ListDocuments([[7, 12, 30, 9] * 6, [5] * 40, [200, 3]])
    digest = hashlib.sha256()
    for whole_word_mask in (False, True):
        data = schema.Data(
            max_seq_length=64,
            max_predictions_per_seq=9,
            whole_word_mask=whole_word_mask,
            short_seq_prob=0.5,
        )
        starts_word_V = np.arange(documents.vocabulary_size) % 3 > 0
        vocabulary = vocabulary_of(documents.vocabulary_size, starts_word_V)
        indices, epochs = np.tile(np.arange(10), 20), np.repeat(np.arange(20), 10)
        found = examples(documents, indices, epochs, data, vocabulary, seed=3)
        for name in sorted(found):
            digest.update(found[name].astype("<f8").tobytes())
    assert digest.hexdigest()[:16] == "fa3326e5607f23f5"


# --- many examples -------------------------------------------------------------------------------


def test_mask_rate_and_shares():
    documents = ListDocuments([[20] * 300, [20] * 300])
    data = schema.Data(short_seq_prob=0.0)
    found = all_examples(documents, data, 20)
    predicted = found["masked_lm_weights"] == 1
    row, _ = np.nonzero(predicted)
    positions, labels = found["masked_lm_positions"][predicted], found["masked_lm_ids"][predicted]
    inputs = found["input_ids"][row, positions]
    assert ((inputs == MASK) | (inputs >= SPECIALS)).all()
    masked, kept = int((inputs == MASK).sum()), int((inputs == labels).sum())
    changed = int(((inputs != MASK) & (inputs != labels)).sum())
    tokens = int(found["input_mask"].sum()) - 3 * len(found["input_mask"])
    middles = positions[found["input_mask"].all(axis=1)[row]]
    count = masked + kept + changed
    assert count > 30_000
    # Rounding 18.75 to 19 of 125 is the whole difference from 0.15.
    assert count / tokens == pytest.approx(0.15, abs=0.003)
    for share, expected in ((masked, 0.8), (kept, 0.1), (changed, 0.1)):
        deviation = (expected * (1 - expected) / count) ** 0.5
        assert share / count == pytest.approx(expected, abs=5 * deviation)
    # Every position is as likely as any other: mean and spread of a uniform one.
    assert np.mean(middles) == pytest.approx(64, abs=5 * 36 / len(middles) ** 0.5)
    assert np.std(middles) == pytest.approx(126 / 12**0.5, rel=0.03)


def test_random_replacements_are_uniform_over_ordinary_tokens():
    vocabulary = vocabulary_of(25)
    streams, numbers = counter_rng.streams(np.zeros(100_000, int)), np.arange(100_000)
    originals = np.full(100_000, 10_000, np.int32)
    drawn = masking._replacements(originals, vocabulary, streams, numbers)
    counts = np.bincount(drawn[(drawn != MASK) & (drawn != 10_000)], minlength=25)
    assert (counts[:SPECIALS] == 0).all()
    expected = counts.sum() / 20
    # Chi-square with 19 degrees of freedom exceeds 50 once in 7,000 seeds.
    assert ((counts[SPECIALS:] - expected) ** 2 / expected).sum() < 50


def test_next_sentence_labels_are_about_half_random():
    documents = ListDocuments([[10] * 400] * 3)
    data = schema.Data(short_seq_prob=0.0)
    labels = all_examples(documents, data, 30)["next_sentence_labels"]
    assert len(labels) > 2500
    # Walks make pairs that share draws, and end in a forced one: a wider bound than a coin's.
    assert np.mean(labels) == pytest.approx(0.5, abs=0.05)


def test_random_segments_come_from_all_other_documents():
    documents = ListDocuments([[30] * 4] * 6)
    data = schema.Data(max_seq_length=32)
    others = set()
    for epoch in range(300):
        found = example(documents, 0, data, epoch=epoch)
        if found["next_sentence_labels"]:
            others.add(documents.document_of(segments(found)[1][0]))
    assert others == {1, 2, 3, 4, 5}


# --- whole words ---------------------------------------------------------------------------------


@given(CORPORA, st.data(), st.integers(8, 100), st.integers(1, 20), st.floats(0, 0.6))
@settings(max_examples=200)
def test_whole_words_stay_together(documents, draw, length, most, masked_lm_prob):
    seed = draw.draw(st.integers(0, 2**32))
    starts_word_V = np.random.default_rng(seed).random(documents.vocabulary_size) < 0.5
    vocabulary = vocabulary_of(documents.vocabulary_size, starts_word_V)
    data = schema.Data(
        max_seq_length=length,
        max_predictions_per_seq=most,
        masked_lm_prob=masked_lm_prob,
        whole_word_mask=True,
    )
    found = example(documents, 0, data, vocabulary, seed=seed)
    count = int(found["masked_lm_weights"].sum())
    predicted = np.zeros(length, bool)
    predicted[found["masked_lm_positions"][:count]] = True
    a, b = segments(found)
    words = []
    for begin, segment in ((1, a), (len(a) + 2, b)):
        for offset, token in enumerate(segment):
            if offset == 0 or starts_word_V[token]:
                words.append([])
            words[-1].append(begin + offset)
    hit = [word for word in words if predicted[word].any()]
    broken = [word for word in hit if not predicted[word].all()]
    wanted = min(most, max(1, round((len(a) + len(b)) * masked_lm_prob)))
    shortest = min(len(word) for word in words)
    assert 1 <= count <= most
    if shortest > wanted:
        assert len(hit) == 1 and len(hit[0]) == shortest and count == min(shortest, most)
    else:
        assert not broken and count <= wanted


def test_whole_words_reach_the_mask_rate():
    documents = ListDocuments([[20] * 100, [20] * 100])
    starts_word_V = np.arange(documents.vocabulary_size) % 4 != 0
    vocabulary = vocabulary_of(documents.vocabulary_size, starts_word_V)
    data = schema.Data(whole_word_mask=True, short_seq_prob=0.0)
    found = [example(documents, 0, data, vocabulary, epoch=epoch) for epoch in range(100)]
    counts = [e["masked_lm_weights"].sum() for e in found if e["input_mask"].all()]
    assert len(counts) > 50 and set(counts) == {19}


# --- the vocabulary ------------------------------------------------------------------------------


def test_vocabulary_of_a_tokenizer():
    tokenizer = SimpleNamespace(
        pad=7, unk=0, cls=3, sep=4, mask=9, size=10, starts_word=np.arange(10) > 2
    )
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.size == 10
    assert vocabulary.ordinary.tolist() == [1, 2, 5, 6, 8]
    assert (vocabulary.pad, vocabulary.cls, vocabulary.sep, vocabulary.mask) == (7, 3, 4, 9)
    assert (vocabulary.starts_word_V == tokenizer.starts_word).all()


def test_a_vocabulary_of_special_tokens_is_refused():
    tokenizer = SimpleNamespace(pad=0, unk=1, cls=2, sep=3, mask=4, size=5, starts_word=np.ones(5))
    with pytest.raises(schema.InputError, match="nothing but special tokens"):
        Vocabulary.of(tokenizer)
