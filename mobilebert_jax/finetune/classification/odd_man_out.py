"""A task made of the run's own text: was a word of this sentence replaced by another?

Half of the sentences stand as they were written. In the others one word gives way to another of
about the same frequency, so that only its fit with the rest can tell. All are of documents that
pretraining never sees. After the probing task SOMO (semantic odd man out) of Conneau et al., "What
you can cram into a single vector" (ACL 2018), which replaces nouns and verbs only.
"""

import functools
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import corpus, prepare_unit, sentences
from mobilebert_jax.data.corpus import Document, Shard
from mobilebert_jax.data.work_units import SHARD_BYTES
from mobilebert_jax.data.workers import Workers, available_cores, started
from mobilebert_jax.finetune.examples import Example, TaskData

LABELS = ("original", "replaced")
MOST_SENTENCES = 6_000
MOST_OF_A_DOCUMENT = 25
"""Sentences, so that a long document does not decide what all are about."""
LEAST_SENTENCES = 100
WORDS = range(6, 31)
"""Of a sentence: fewer say too little to tell, more are cut where examples are short."""
DEV_SHARE = 0.25
"""Of the held-out documents."""

_WORD = re.compile(r"(?<![^\W_])[^\W\d_]{2,}(?![\w'\u2019-])")
Alternatives = Mapping[int, tuple[list[str], list[int]]]
"""By class of frequency: its words, and how often each occurs."""


def read(source: str, held_out: float, workers: int) -> TaskData[Example]:
    """Returns the task made of the documents of `source` that `held_out` keeps from training.

    Raises InputError when they have too few sentences.
    """
    with started(workers, lambda phase, done, total: None) as pool:
        by_document = _collect(source, held_out, workers, pool)
    found = sum(len(lines) for _, lines in by_document)
    if found < LEAST_SENTENCES:
        raise InputError(
            f"the task 'odd_man_out' needs {LEAST_SENTENCES} sentences of {WORDS.start} to "
            f"{WORDS.stop - 1} words, but data.validation_fraction={held_out} keeps only {found} "
            "from pretraining; prepare and pretrain with a larger one, or on more text"
        )
    counts = Counter(m[0] for _, lines in by_document for line in lines for m in _lower_case(line))
    others = _by_frequency(counts)
    examples: dict[bool, list[Example]] = {False: [], True: []}
    for document, lines in sorted(by_document, key=lambda pair: pair[0].origin):
        rows = examples[prepare_unit.is_held_out(document.lines, held_out * DEV_SHARE)]
        for number, sentence in enumerate(lines):
            text, label = _judged(sentence, counts, others)
            if text:
                name = f"{document.origin}:{number}"
                rows.append(Example(name, text, None, float(label), document.origin))
    return TaskData(LABELS, examples[False], {"dev": examples[True]}, {}, {})


def _collect(
    source: str, held_out: float, workers: int, pool: Workers
) -> list[tuple[Document, list[str]]]:
    """Reads shards of all sources until there are enough sentences, each of them once."""
    terms = corpus.parse_sources(source)
    planned = [shard for term in terms for shard in corpus.plan_shards(term, SHARD_BYTES)]
    read_shard = functools.partial(_held_out, share=held_out)
    found: list[tuple[Document, list[str]]] = []
    seen: set[str] = set()
    at_once = workers or available_cores()
    for start in range(0, len(planned), at_once):
        for documents in pool.map(read_shard, planned[start : start + at_once], "reading"):
            for document in documents:
                lines = [line for line in dict.fromkeys(_sentences(document)) if line not in seen]
                lines = lines[: min(MOST_OF_A_DOCUMENT, MOST_SENTENCES - len(seen))]
                seen.update(lines)
                if lines:
                    found.append((document, lines))
        if len(seen) == MOST_SENTENCES:
            break
    return found


def _held_out(shard: Shard, share: float) -> list[Document]:
    return [d for d in corpus.read(shard) if prepare_unit.is_held_out(d.lines, share)]


def _sentences(document: Document) -> Iterator[str]:
    for line in document.lines:
        for sentence in sentences.split(line):
            if sentence.count(" ") + 1 in WORDS:
                yield sentence


def _lower_case(sentence: str) -> list[re.Match[str]]:
    """Names keep their place: where one is replaced, its capital letter would tell."""
    return [match for match in _WORD.finditer(sentence) if match[0].islower()]


def _judged(sentence: str, counts: Mapping[str, int], others: Alternatives) -> tuple[str, bool]:
    """Returns the sentence as the task shows it, and whether a word was replaced.

    Nothing of a sentence in which no word could have been: it would always be an original.
    """
    draw = random.Random(sentence)
    places = [
        m for m in _lower_case(sentence) if len(others[_frequency_class(counts[m[0]])][0]) > 1
    ]
    if not places:
        return "", False
    if draw.random() < 0.5:
        return sentence, False
    place = draw.choice(places)
    word = place[0]
    words, how_often = others[_frequency_class(counts[word])]
    while word == place[0]:
        (word,) = draw.choices(words, how_often)
    return sentence[: place.start()] + word + sentence[place.end() :], True


def _by_frequency(counts: Mapping[str, int]) -> Alternatives:
    classes: dict[int, tuple[list[str], list[int]]] = defaultdict(lambda: ([], []))
    for word, count in sorted(counts.items()):
        words, how_often = classes[_frequency_class(count)]
        words.append(word)
        how_often.append(count)
    return dict(classes)


def _frequency_class(count: int) -> int:
    """Words of one class differ by less than a factor of four."""
    return (count.bit_length() + 1) // 2
