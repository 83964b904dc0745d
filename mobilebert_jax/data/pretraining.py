"""Pretraining examples: pairs of segments cut from documents, and tokens masked in them.

This is BERT's recipe (Devlin et al. 2019, section 3.1 and appendix A.1; its released
`create_pretraining_data.py`), computed from indices, so that nothing is written to disk, every
epoch draws other pairs and other masks, and a restart needs no state.

Shapes: B examples, S length of an example, P most predictions in it, R records, D documents.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config import schema
from mobilebert_jax.data import counter_rng, masking, pairs
from mobilebert_jax.data.counter_rng import Streams
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.data.pairs import SPECIAL_TOKENS

_WALKS, _OTHER, _SEGMENT, _TRUNCATION, _MASKING = range(5)
"""Kinds of choices, whose random streams are apart."""

Document = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Its tokens, and the lengths of its sentences."""


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

    def __getitem__(self, index: int, /) -> Document: ...


class Segments(NamedTuple):
    """The texts of examples, [B] each, and whether B comes from another document."""

    a: list[NDArray[np.int32]]
    b: list[NDArray[np.int32]]
    random_next_B: NDArray[np.bool_]


def examples(
    documents: Documents,
    starts: NDArray[np.int64],
    index_B: NDArray[np.int64],
    epoch_B: NDArray[np.int64],
    *,
    seed: int,
    source: int,
    data: schema.Data,
    vocabulary: Vocabulary,
) -> dict[str, NDArray]:
    """Returns examples `index_B` of the epochs `epoch_B`, a pure function of the arguments.

    `starts` comes from `pairs.example_starts`; `source` numbers the documents' source. Each example
    depends on its own index and epoch alone. Returned: input_ids, input_mask, segment_ids [B, S]
    int32, masked_lm_positions, masked_lm_ids [B, P] int32, masked_lm_weights [B, P] float32 (1 for
    a prediction, 0 for padding), next_sentence_labels [B] int32 (0 when B follows A, 1 when it is
    random).
    """
    streams_B = counter_rng.streams(seed, source, epoch_B, index_B)
    record_B = np.searchsorted(starts, index_B, side="right") - 1
    walks_B = counter_rng.streams(seed, source, epoch_B, record_B, _WALKS)
    number_B = index_B - starts[record_B]
    texts = _segments(documents, record_B, number_B, walks_B, streams_B, data)
    return _arrays(texts, data, vocabulary, counter_rng.streams(streams_B, _MASKING))


def _segments(
    documents: Documents,
    record_B: NDArray[np.int64],
    number_B: NDArray[np.int64],
    walks_B: Streams,
    streams_B: Streams,
    data: schema.Data,
) -> Segments:
    own = [documents[record] for record in record_B.tolist()]
    cut = pairs.nth_pairs(
        [lengths for _, lengths in own], number_B, walks_B, data.max_seq_length, data.short_seq_prob
    )
    start, middle, stop = cut.start.tolist(), cut.middle.tolist(), cut.stop.tolist()
    a = [tokens[i:j] for (tokens, _), i, j in zip(own, start, middle, strict=True)]
    b = [tokens[i:j] for (tokens, _), i, j in zip(own, middle, stop, strict=True)]
    random_B = cut.stop == cut.middle
    rows = np.flatnonzero(random_B)
    if len(rows):
        streams = streams_B[rows]
        other = pairs.other_records(
            documents.document_numbers, record_B[rows], counter_rng.streams(streams, _OTHER)
        )
        others = [documents[record] for record in other.tolist()]
        wanted = cut.target[rows] - (cut.middle - cut.start)[rows]
        begin, end = pairs.random_segments(
            [lengths for _, lengths in others], wanted, counter_rng.streams(streams, _SEGMENT)
        )
        for row, (tokens, _), i, j in zip(
            rows.tolist(), others, begin.tolist(), end.tolist(), strict=True
        ):
            b[row] = tokens[i:j]
    return Segments(*_truncated(a, b, data.max_seq_length - SPECIAL_TOKENS, streams_B), random_B)


def _truncated(
    a: list[NDArray[np.int32]], b: list[NDArray[np.int32]], capacity: int, streams_B: Streams
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
    counts = np.array([len(tokens) for tokens in a]), np.array([len(tokens) for tokens in b])
    kept = pairs.truncate(*counts, capacity, counter_rng.streams(streams_B, _TRUNCATION))
    cut = [
        [
            tokens[first : first + size]
            for tokens, first, size in zip(
                texts, segment.first.tolist(), segment.size.tolist(), strict=True
            )
        ]
        for texts, segment in zip((a, b), kept, strict=True)
    ]
    return cut[0], cut[1]


def _arrays(
    texts: Segments, data: schema.Data, vocabulary: Vocabulary, streams_B: Streams
) -> dict[str, NDArray]:
    input_ids = np.full((len(texts.a), data.max_seq_length), vocabulary.pad, np.int32)
    input_ids[:, 0] = vocabulary.cls
    for ids, a, b in zip(input_ids, texts.a, texts.b, strict=True):
        middle, end = len(a) + 1, len(a) + len(b) + 2
        ids[1:middle] = a
        ids[middle] = vocabulary.sep
        ids[middle + 1 : end] = b
        ids[end] = vocabulary.sep
    middle_B = np.array([len(a) for a in texts.a])[:, None] + 1
    end_B = middle_B + np.array([len(b) for b in texts.b])[:, None] + 1
    column = np.arange(data.max_seq_length)
    text_BS = (column > 0) & (column < end_B) & (column != middle_B)
    begins_BS = (column == 1) | (column == middle_B + 1)
    predicted = masking.mask(input_ids, text_BS, begins_BS, data, vocabulary, streams_B)
    return {
        "input_ids": input_ids,
        "input_mask": (column <= end_B).astype(np.int32),
        "segment_ids": ((column > middle_B) & (column <= end_B)).astype(np.int32),
        "masked_lm_positions": predicted.positions,
        "masked_lm_ids": predicted.ids,
        "masked_lm_weights": predicted.weights,
        "next_sentence_labels": texts.random_next_B.astype(np.int32),
    }
