"""A task made of the run's own text: does the second sentence follow the first?

In half of the pairs it does, in the others it is of another document. All are of documents that
pretraining never sees. BERT's next-sentence prediction asks the same of longer segments, so a
network that learnt it from its teacher has a start that one from scratch has not.
"""

import functools
import random
from collections.abc import Sequence
from typing import NamedTuple

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import corpus, prepare_unit, sentences
from mobilebert_jax.data.corpus import Document, Shard
from mobilebert_jax.data.work_units import SHARD_BYTES
from mobilebert_jax.data.workers import Workers, available_cores, started
from mobilebert_jax.finetune.examples import Example, TaskData

LABELS = ("next", "other")
MOST_PAIRS = 12_000
MOST_OF_A_DOCUMENT = 60
"""Pairs, so that a long document does not decide what all are about."""
LEAST_PAIRS = 100
WORDS = range(4, 41)
"""Of a sentence: fewer say too little to tell, more are cut where examples are short."""
DEV_SHARE = 1 / 3
"""Of the held-out documents."""


class _Text(NamedTuple):
    """The sentences of a document, the pairs chosen of it, and the side that it is on."""

    origin: str
    sentences: tuple[str, ...]
    firsts: tuple[int, ...]
    is_dev: bool


def read(source: str, held_out: float, workers: int) -> TaskData[Example]:
    """Returns the task made of the documents of `source` that `held_out` keeps from training.

    Raises InputError when they have too few pairs of sentences.
    """
    with started(workers, lambda phase, done, total: None) as pool:
        texts = _collect(source, held_out, workers, pool)
    found = sum(len(text.firsts) for text in texts)
    sides = [[text for text in texts if text.is_dev is dev] for dev in (False, True)]
    if found < LEAST_PAIRS or any(len(side) < 2 for side in sides):
        raise InputError(
            f"the task 'next_sentence' needs {LEAST_PAIRS} pairs of sentences of {WORDS.start} to "
            f"{WORDS.stop - 1} words, but data.validation_fraction={held_out} keeps only {found} "
            "from pretraining; prepare and pretrain with a larger one, or on more text"
        )
    train, dev = (_examples(side) for side in sides)
    return TaskData(LABELS, train, {"dev": dev}, {}, {})


def _collect(source: str, held_out: float, workers: int, pool: Workers) -> list[_Text]:
    """Reads shards of all sources until there are enough pairs, no first sentence of them twice."""
    terms = corpus.parse_sources(source)
    planned = [shard for term in terms for shard in corpus.plan_shards(term, SHARD_BYTES)]
    read_shard = functools.partial(_held_out, share=held_out)
    found: list[_Text] = []
    seen: set[str] = set()
    at_once = workers or available_cores()
    for start in range(0, len(planned), at_once):
        for documents in pool.map(read_shard, planned[start : start + at_once], "reading"):
            for document in documents:
                text = _chosen(document, held_out, seen)
                if text.firsts:
                    found.append(text)
        if len(seen) == MOST_PAIRS:
            break
    return sorted(found)


def _held_out(shard: Shard, share: float) -> list[Document]:
    return [d for d in corpus.read(shard) if prepare_unit.is_held_out(d.lines, share)]


def _chosen(document: Document, held_out: float, seen: set[str]) -> _Text:
    """Returns the pairs of a document, as far as they are wanted, and adds them to `seen`."""
    lines = tuple(
        sentence
        for line in document.lines
        for sentence in sentences.split(line)
        if sentence.count(" ") + 1 in WORDS
    )
    new = [n for n in range(len(lines) - 1) if lines[n] not in seen]
    firsts = {lines[n]: n for n in reversed(new)}  # of a sentence that occurs again the first time
    most = min(MOST_OF_A_DOCUMENT, MOST_PAIRS - len(seen), len(firsts))
    draw = random.Random("\n".join(lines))
    chosen = sorted(draw.sample(sorted(firsts.values()), most))
    seen.update(lines[n] for n in chosen)
    is_dev = prepare_unit.is_held_out(document.lines, held_out * DEV_SHARE)
    return _Text(document.origin, lines, tuple(chosen), is_dev)


def _examples(texts: Sequence[_Text]) -> list[Example]:
    """Returns the pairs of documents on one side, each with its own next sentence or another's."""
    made = []
    for index, text in enumerate(texts):
        for n in text.firsts:
            draw = random.Random(f"{text.origin}:{n}:{text.sentences[n]}")
            follows = draw.random() < 0.5
            second = text.sentences[n + 1]
            if not follows:
                other = draw.randrange(len(texts) - 1)
                second = draw.choice(texts[other + (other >= index)].sentences)
            label = LABELS.index("next" if follows else "other")
            name = f"{text.origin}:{n}"
            made.append(Example(name, text.sentences[n], second, float(label), text.origin))
    return made
