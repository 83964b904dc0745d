"""BERT's pairs and masks: what must hold of every example, and of many together."""

import hashlib
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilebert_jax import config
from mobilebert_jax.data import pretraining
from mobilebert_jax.data.pretraining import Key, Vocabulary

PAD, CLS, SEP, MASK, SPECIALS = 0, 2, 3, 4, 5
KEY = Key(seed=0, source=0, epoch=0)
LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


class ListDocuments:
    """Documents in which no token occurs twice, so that each tells where it comes from."""

    weight = 1.0

    def __init__(self, sentence_lengths):
        self._lengths = [np.array(lengths, np.int32) for lengths in sentence_lengths]
        self.token_counts = np.array([n.sum() for n in self._lengths], np.int64)
        self.document_numbers = np.arange(len(self.token_counts))
        self.firsts = SPECIALS + np.cumsum(self.token_counts) - self.token_counts
        self.vocabulary_size = SPECIALS + int(self.token_counts.sum())

    def __len__(self):
        return len(self._lengths)

    def __getitem__(self, index):
        first = self.firsts[index]
        tokens = np.arange(first, first + self.token_counts[index], dtype=np.int32)
        return tokens, self._lengths[index]

    def document_of(self, token):
        return int(np.searchsorted(self.firsts, token, side="right")) - 1


def vocabulary_of(size, starts_word_V=None):
    if starts_word_V is None:
        starts_word_V = np.ones(size, bool)
    ordinary = np.arange(SPECIALS, size, dtype=np.int32)
    return Vocabulary(PAD, CLS, SEP, MASK, ordinary, starts_word_V)


def example(documents, index, data, key=KEY, vocabulary=None):
    starts = pretraining.example_starts(documents.token_counts, data.length)
    vocabulary = vocabulary or vocabulary_of(documents.vocabulary_size)
    return pretraining.pretraining_example(
        documents, starts, index, key=key, data=data, vocabulary=vocabulary
    )


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


# --- the walk ------------------------------------------------------------------------------------


def bert_walk(sentence_lengths, length, short_rate, rng):
    """The loop over sentences as BERT describes it, gathering one sentence at a time."""
    capacity = length - 3
    target = capacity
    if rng.random() < short_rate:
        target = 2 + int(rng.random() * (capacity - 1))
    pairs, gathered, i = [], [], 0
    while i < len(sentence_lengths):
        gathered.append(i)
        total = sum(sentence_lengths[j] for j in gathered)
        if i == len(sentence_lengths) - 1 or total >= target:
            size_a = 1 + int(rng.random() * (len(gathered) - 1)) if len(gathered) > 1 else 1
            is_random = len(gathered) == 1 or rng.random() < 0.5
            if is_random:
                i -= len(gathered) - size_a
            pairs.append((gathered[:size_a], [] if is_random else gathered[size_a:]))
            gathered = []
        i += 1
    return pairs


@given(LENGTHS, st.sampled_from([16, 64, 320]), st.floats(0, 1), st.integers(0, 2**32))
def test_walk_is_berts(sentence_lengths, length, short_rate, seed):
    sentence_lengths = [min(n, length - 3) for n in sentence_lengths]
    offsets = [0, *np.cumsum(sentence_lengths).tolist()]
    pairs = pretraining.segment_pairs(
        np.array(sentence_lengths, np.int32), length, short_rate, random.Random(seed)
    )
    expected = bert_walk(sentence_lengths, length, short_rate, random.Random(seed))
    assert len(pairs) == len(expected)
    for pair, (in_a, in_b) in zip(pairs, expected, strict=True):
        assert (pair.start, pair.middle) == (offsets[in_a[0]], offsets[in_a[-1] + 1])
        assert pair.random_next == (not in_b)
        assert pair.stop == offsets[(in_b or in_a)[-1] + 1]


@given(LENGTHS, st.integers(8, 160), st.floats(0, 1), st.integers(0, 2**32))
def test_walk_loses_no_token(sentence_lengths, length, short_rate, seed):
    pairs = pretraining.segment_pairs(
        np.array(sentence_lengths, np.int32), length, short_rate, random.Random(seed)
    )
    assert [p.start for p in pairs] == [0, *(p.stop for p in pairs[:-1])]
    assert pairs[-1].stop == sum(sentence_lengths)
    assert all(p.start < p.middle <= p.stop for p in pairs)
    assert len({p.target for p in pairs}) == 1
    assert 2 <= pairs[0].target <= length - 3


def test_a_sentence_longer_than_an_example_is_cut_into_pairs():
    lengths = np.array([5, 1000, 5], np.int32)
    pairs = pretraining.segment_pairs(lengths, 128, 0.0, random.Random(0))
    assert max(p.stop - p.start for p in pairs) <= 125 + 62
    assert {p.random_next for p in pairs} == {False, True}


def test_half_of_the_pairs_are_random_and_a_tenth_of_the_walks_short():
    rng = random.Random(0)
    lengths = np.full(60, 10, np.int32)
    walks = [pretraining.segment_pairs(lengths, 128, 0.0, rng) for _ in range(2000)]
    # A pair that begins at the last sentence has no choice.
    choices = [p.random_next for walk in walks for p in walk if p.start < 590]
    assert len(choices) > 8000
    assert np.mean(choices) == pytest.approx(0.5, abs=5 * 0.5 / len(choices) ** 0.5)

    walks = [pretraining.segment_pairs(lengths, 128, 0.1, rng) for _ in range(5000)]
    targets = np.array([walk[0].target for walk in walks])
    short = targets[targets < 125]
    # One of the 124 random lengths, the largest, is not short.
    assert len(short) / 5000 == pytest.approx(0.1 * 123 / 124, abs=5 * (0.09 / 5000) ** 0.5)
    assert short.min() < 10 and short.max() > 118
    assert short.mean() == pytest.approx(63, abs=5 * 36 / len(short) ** 0.5)


@given(LENGTHS, st.integers(8, 600))
def test_a_document_counts_for_examples_of_three_quarters_of_the_length(token_counts, length):
    starts = pretraining.example_starts(np.array(token_counts), length)
    counts = np.diff(starts)
    assert starts[0] == 0 and counts.min() >= 1
    used = 0.75 * (length - 3)
    assert (np.abs(counts * used - token_counts)[counts > 1] <= used / 2 + 1e-9).all()


def test_half_of_the_pairs_of_short_documents_are_random():
    """A walk that begins with a true pair ends sooner; that must not make true pairs likelier."""
    documents = ListDocuments([[6, 6, 6]] * 50)
    data = config.Data(length=64, max_predictions=9, short_rate=0.0)
    vocabulary = vocabulary_of(documents.vocabulary_size)
    labels = [
        int(example(documents, index, data, Key(0, 0, epoch), vocabulary)["next_sentence_labels"])
        for epoch in range(40)
        for index in range(50)
    ]
    assert np.mean(labels) == pytest.approx(0.5, abs=5 * 0.5 / len(labels) ** 0.5)


def test_a_random_segment_is_never_of_a_part_of_the_same_document():
    numbers = np.array([0, 0, 0, 1, 2, 2])
    rng = random.Random(0)
    for record in range(6):
        drawn = {pretraining._other_document(numbers, record, rng) for _ in range(300)}
        assert drawn == {r for r in range(6) if numbers[r] != numbers[record]}


# --- truncation ----------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 200), st.integers(5, 200), st.integers(0, 2**32))
def test_truncation_takes_from_the_longer(length_a, length_b, capacity, seed):
    expected_a, expected_b = length_a, length_b
    while expected_a + expected_b > capacity:
        if expected_a > expected_b:
            expected_a -= 1
        else:
            expected_b -= 1
    whole_a, whole_b = np.arange(length_a), 1000 + np.arange(length_b)
    a, b = pretraining.truncate_pair(whole_a, whole_b, capacity, random.Random(seed))
    assert (len(a), len(b)) == (expected_a, expected_b)
    assert (a == a[0] + np.arange(len(a))).all() and a[0] >= 0 and a[-1] < length_a
    assert (b == b[0] + np.arange(len(b))).all() and b[0] >= 1000 and b[-1] < 1000 + length_b


def test_truncation_drops_from_both_ends_alike():
    rng = random.Random(0)
    whole, short = np.arange(164), np.arange(1)
    dropped = [pretraining.truncate_pair(whole, short, 65, rng)[0][0] for _ in range(2000)]
    assert np.mean(dropped) == pytest.approx(50, abs=5 * 5 / 2000**0.5)
    assert np.std(dropped) == pytest.approx(5, rel=0.1)


# --- one example ---------------------------------------------------------------------------------

CORPORA = st.lists(LENGTHS, min_size=2, max_size=5).map(ListDocuments)
DATA = st.builds(
    config.Data,
    length=st.integers(8, 140),
    max_predictions=st.integers(1, 8),
    mask_rate=st.floats(0, 1),
    short_rate=st.floats(0, 1),
    whole_words=st.booleans(),
)


@given(CORPORA, DATA, st.integers(0, 10**6), st.integers(0, 2**40))
@settings(max_examples=200)
def test_layout_and_segments(documents, data, draw, seed):
    starts = pretraining.example_starts(documents.token_counts, data.length)
    index = draw % int(starts[-1])
    found = example(documents, index, data, Key(seed, 0, 0))
    used = int(found["input_mask"].sum())
    a, b = segments(found)
    assert len(a) >= 1 and len(b) >= 1 and used == len(a) + len(b) + 3 <= data.length
    ids = restored(found)
    separators = [len(a) + 1, used - 1]
    assert ids[0] == CLS and np.flatnonzero(ids == SEP).tolist() == separators
    assert (ids[used:] == PAD).all() and (ids == PAD).sum() == data.length - used
    expected_segment = np.zeros(data.length)
    expected_segment[len(a) + 2 : used] = 1
    assert (found["segment_ids"] == expected_segment).all()
    assert (found["input_mask"] == (np.arange(data.length) < used)).all()

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
    found = example(documents, 0, data, Key(seed, 0, 0))
    used, weights = int(found["input_mask"].sum()), found["masked_lm_weights"]
    count = int(weights.sum())
    assert (weights == (np.arange(data.max_predictions) < count)).all()
    wanted = min(data.max_predictions, max(1, round((used - 3) * data.mask_rate)))
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
    found = example(documents, 0, config.Data(length=32, max_predictions=5))
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
    first, again = (example(documents, 0, data, Key(seed, 1, 2)) for _ in range(2))
    assert all((first[name] == again[name]).all() for name in first)


def test_every_part_of_the_key_matters():
    documents = ListDocuments([[9] * 200] * 3)
    keys = [Key(0, 0, 0), Key(1, 0, 0), Key(0, 1, 0), Key(0, 0, 1), Key(-1, 0, 0)]
    found = {example(documents, 0, config.Data(), key)["input_ids"].tobytes() for key in keys}
    assert len(found) == len(keys)


def test_the_same_example_on_every_python():
    documents = ListDocuments([[7, 12, 30, 9] * 6, [5] * 40, [200, 3]])
    digest = hashlib.sha256()
    for whole_words in (False, True):
        data = config.Data(length=64, max_predictions=9, whole_words=whole_words, short_rate=0.5)
        starts_word_V = np.arange(documents.vocabulary_size) % 3 > 0
        vocabulary = vocabulary_of(documents.vocabulary_size, starts_word_V)
        for epoch in range(20):
            for index in range(10):
                found = example(documents, index, data, Key(3, 0, epoch), vocabulary)
                for name in sorted(found):
                    digest.update(found[name].astype("<f8").tobytes())
    assert digest.hexdigest()[:16] == "9db94f93ddafaaf3"


# --- many examples -------------------------------------------------------------------------------


def test_mask_rate_and_shares():
    documents = ListDocuments([[20] * 300, [20] * 300])
    data = config.Data(short_rate=0.0)
    total = int(pretraining.example_starts(documents.token_counts, data.length)[-1])
    masked = kept = changed = tokens = 0
    middles = []
    for epoch in range(20):
        for index in range(total):
            found = example(documents, index, data, Key(0, 0, epoch))
            count = int(found["masked_lm_weights"].sum())
            positions, labels = found["masked_lm_positions"][:count], found["masked_lm_ids"][:count]
            inputs = found["input_ids"][positions]
            assert ((inputs == MASK) | (inputs >= SPECIALS)).all()
            masked += int((inputs == MASK).sum())
            kept += int((inputs == labels).sum())
            changed += int(((inputs != MASK) & (inputs != labels)).sum())
            tokens += int(found["input_mask"].sum()) - 3
            if found["input_mask"].all():
                middles += positions.tolist()
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
    drawn = pretraining._replacements([10_000] * 100_000, vocabulary, random.Random(0))
    counts = np.bincount([t for t in drawn if t not in (MASK, 10_000)], minlength=25)
    assert (counts[:SPECIALS] == 0).all()
    expected = counts.sum() / 20
    # Chi-square with 19 degrees of freedom exceeds 50 once in 7,000 seeds.
    assert ((counts[SPECIALS:] - expected) ** 2 / expected).sum() < 50


def test_next_sentence_labels_are_about_half_random():
    documents = ListDocuments([[10] * 400] * 3)
    data = config.Data(short_rate=0.0)
    total = int(pretraining.example_starts(documents.token_counts, data.length)[-1])
    labels = [
        int(example(documents, index, data, Key(0, 0, epoch))["next_sentence_labels"])
        for epoch in range(30)
        for index in range(total)
    ]
    assert len(labels) > 2500
    # Walks make pairs that share draws, and end in a forced one: a wider bound than a coin's.
    assert np.mean(labels) == pytest.approx(0.5, abs=0.05)


def test_random_segments_come_from_all_other_documents():
    documents = ListDocuments([[30] * 4] * 6)
    data = config.Data(length=32)
    others = set()
    for epoch in range(300):
        found = example(documents, 0, data, Key(0, 0, epoch))
        if found["next_sentence_labels"]:
            others.add(documents.document_of(segments(found)[1][0]))
    assert others == {1, 2, 3, 4, 5}


# --- whole words ---------------------------------------------------------------------------------


@given(CORPORA, st.data(), st.integers(8, 100), st.integers(1, 20), st.floats(0, 0.6))
@settings(max_examples=200)
def test_whole_words_stay_together(documents, draw, length, most, mask_rate):
    seed = draw.draw(st.integers(0, 2**32))
    starts_word_V = np.random.default_rng(seed).random(documents.vocabulary_size) < 0.5
    vocabulary = vocabulary_of(documents.vocabulary_size, starts_word_V)
    data = config.Data(length=length, max_predictions=most, mask_rate=mask_rate, whole_words=True)
    found = example(documents, 0, data, Key(seed, 0, 0), vocabulary)
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
    wanted = min(most, max(1, round((len(a) + len(b)) * mask_rate)))
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
    data = config.Data(whole_words=True, short_rate=0.0)
    found = [example(documents, 0, data, Key(0, 0, epoch), vocabulary) for epoch in range(100)]
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
    with pytest.raises(config.InputError, match="nothing but special tokens"):
        Vocabulary.of(tokenizer)
