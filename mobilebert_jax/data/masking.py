"""Which tokens of a batch of texts are to be predicted, and what stands in their place.

BERT's recipe (Devlin et al. 2019, section 3.1): a share of the tokens is predicted, of which 80 %
are masked, 10 % replaced by a random token and 10 % left as they are; optionally whole words.

Shapes: B examples, S length of an example, P most predictions in one, W most words in one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config import schema
from mobilebert_jax.data import counter_rng
from mobilebert_jax.data.counter_rng import Streams

if TYPE_CHECKING:
    from mobilebert_jax.data.tokenizer import Tokenizer

MASKED_SHARE = 0.8
KEPT_SHARE = 0.1
"""Of the predicted tokens; the remaining tenth become random tokens."""

_ORDER, _FATE, _REPLACEMENT = range(3)
_NEVER = np.uint64(2**64 - 1)


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
            raise schema.InputError(
                f"the vocabulary of {tokenizer.size} tokens holds nothing but special tokens; "
                "masking needs at least one ordinary token"
            )
        starts_word_V = np.asarray(tokenizer.starts_word, bool)
        return cls(
            tokenizer.pad, tokenizer.cls, tokenizer.sep, tokenizer.mask, ordinary, starts_word_V
        )


class Predictions(NamedTuple):
    """[B, P]: where predicted tokens stand, in ascending order, and which they were; 0 beyond."""

    positions: NDArray[np.int32]
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    """1 for a prediction, 0 beyond."""


def mask(
    input_ids_BS: NDArray[np.int32],
    text_BS: NDArray[np.bool_],
    segment_starts_BS: NDArray[np.bool_],
    data: schema.Data,
    vocabulary: Vocabulary,
    streams_B: Streams,
) -> Predictions:
    """Chooses tokens among those of `text_BS` and replaces them in `input_ids_BS`.

    Every row has some. `segment_starts_BS` tells where words begin whatever the vocabulary says:
    truncation may have cut a word's first piece away.
    """
    count_B = text_BS.sum(axis=1)
    room_B = np.rint(count_B * data.masked_lm_prob).astype(np.int64)
    room_B = np.minimum(data.max_predictions_per_seq, np.maximum(1, room_B))
    orders = counter_rng.streams(streams_B, _ORDER)
    if data.whole_word_mask:
        begins_BS = text_BS & (vocabulary.starts_word_V[input_ids_BS] | segment_starts_BS)
        chosen_BS = _whole_words(text_BS, begins_BS, room_B, orders)
    else:
        key_BS = _random_keys(orders, text_BS)
        # The last of those that are taken: keys are all different.
        limit = np.take_along_axis(np.sort(key_BS, axis=1), room_B[:, None] - 1, axis=1)
        chosen_BS = key_BS <= limit
    row, position = np.nonzero(chosen_BS)
    number = np.arange(len(row)) - np.searchsorted(row, row)
    fits = number < data.max_predictions_per_seq
    row, position, number = row[fits], position[fits], number[fits]
    ids = input_ids_BS[row, position]
    input_ids_BS[row, position] = _replacements(ids, vocabulary, streams_B[row], number)
    shape = len(input_ids_BS), data.max_predictions_per_seq
    made = Predictions(
        np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    )
    made.positions[row, number] = position
    made.ids[row, number] = ids
    made.weights[row, number] = 1.0
    return made


def _random_keys(streams_B: Streams, wanted: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Returns [B, ...] random keys, different in a row, in their last bits the column; the largest
    number where not `wanted`."""
    columns = np.arange(wanted.shape[1], dtype=np.uint64)
    room = np.uint64(int(wanted.shape[1]).bit_length())
    keys = counter_rng.bits(streams_B[:, None], columns) >> room << room | columns
    return np.where(wanted, keys, _NEVER)


def _whole_words(
    text_BS: NDArray[np.bool_],
    begins_BS: NDArray[np.bool_],
    room_B: NDArray[np.int64],
    streams_B: Streams,
) -> NDArray[np.bool_]:
    """Returns the tokens of whole words taken in random order as long as they fit in `room_B`.

    When not one fits, the shortest is taken, since an example without a prediction teaches nothing;
    only then, and only if it has more pieces than can be predicted, is a word predicted in part.
    """
    rows = np.arange(len(text_BS))
    words_B = begins_BS.sum(axis=1)
    most = int(np.max(words_B))
    word_BS = np.where(text_BS, np.cumsum(begins_BS, axis=1) - 1, most)
    flat = (rows[:, None] * (most + 1) + word_BS).ravel()
    size_BW = np.bincount(flat, minlength=len(rows) * (most + 1)).reshape(len(rows), -1)[:, :-1]
    exists_BW = np.arange(most) < words_B[:, None]
    order_BW = np.argsort(_random_keys(streams_B, exists_BW), axis=1)
    too_large = text_BS.shape[1] + 1
    size_BW = np.where(exists_BW, size_BW, too_large)
    in_order_BW = np.take_along_axis(size_BW, order_BW, axis=1)
    taken_BW, left_B = np.zeros((len(rows), most + 1), bool), room_B.copy()
    for rank in range(most):
        size_B = in_order_BW[:, rank]
        fits_B = size_B <= left_B
        taken_BW[rows, order_BW[:, rank]] = fits_B
        left_B -= size_B * fits_B
        if not left_B.any():
            break
    none_B = np.flatnonzero(left_B == room_B)
    taken_BW[none_B, order_BW[none_B, in_order_BW[none_B].argmin(axis=1)]] = True
    return np.take_along_axis(taken_BW, word_BS, axis=1)


def _replacements(
    ids: NDArray[np.int32], vocabulary: Vocabulary, streams: Streams, number: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Returns what stands in the input for each predicted token, prediction `number` of a row."""
    fate = counter_rng.uniform(counter_rng.streams(streams, _FATE), number)
    choice = counter_rng.below(
        counter_rng.streams(streams, _REPLACEMENT), number, len(vocabulary.ordinary)
    )
    other = np.where(fate < MASKED_SHARE + KEPT_SHARE, ids, vocabulary.ordinary[choice])
    return np.where(fate < MASKED_SHARE, vocabulary.mask, other).astype(np.int32)
