"""Examples as token ids: rows of different lengths, cut from texts, and batches made of them.

Shapes: N rows, F tokens of all rows together, B rows of a batch, T positions of a batch.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.data.batches import Batch
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune.examples import Example, Tagged

FILLER = -1
"""Stands for no row where a batch is larger than what is left."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """N rows of token ids with what is to be learnt of them."""

    ids_F: NDArray[np.int32]
    starts: NDArray[np.int64]
    """[N + 1]: row n is `ids_F[starts[n]:starts[n + 1]]`."""
    second_N: NDArray[np.int32]
    """Position at which the second segment begins; the row's length where there is none."""
    targets: Mapping[str, NDArray]
    """By name in a batch, [N]; empty where rows have no labels."""
    token_targets: Mapping[str, NDArray]
    """By name in a batch, [F]."""

    def __len__(self) -> int:
        return len(self.second_N)

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    @property
    def has_pairs(self) -> bool:
        """Whether any row has a second segment."""
        return bool((self.second_N < self.lengths_N).any())

    @property
    def digest(self) -> str:
        """SHA-256 of everything in the rows."""
        found = hashlib.sha256()
        named: dict[str, NDArray] = {
            "ids": self.ids_F,
            "starts": self.starts,
            "second": self.second_N,
        }
        for name, array in {**named, **self.targets, **self.token_targets}.items():
            found.update(f"{name} {array.shape} {array.dtype.str}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def batch(self, chosen_B: NDArray[np.int64], length: int, pad: int) -> Batch:
        """Returns the rows `chosen_B`, of at most `length` tokens, padded to `length`.

        `FILLER` gives an empty row of weight 0. The batch holds input_ids, input_mask, segment_ids
        [B, T] int32, row_weights [B] float32, and the targets.
        """
        real_B = chosen_B != FILLER
        rows_B = np.where(real_B, chosen_B, 0)
        lengths_B = np.where(real_B, self.lengths_N[rows_B], 0)
        positions_T = np.arange(length)
        mask_BT = positions_T < lengths_B[:, None]
        flat_BT = np.minimum(self.starts[rows_B][:, None] + positions_T, len(self.ids_F) - 1)
        segments_BT = mask_BT & (positions_T >= self.second_N[rows_B][:, None])
        return {
            "input_ids": np.where(mask_BT, self.ids_F[flat_BT], pad).astype(np.int32),
            "input_mask": mask_BT.astype(np.int32),
            "segment_ids": segments_BT.astype(np.int32),
            "row_weights": real_B.astype(np.float32),
            **{name: values[rows_B] for name, values in self.targets.items()},
            **{
                name: np.where(mask_BT, values[flat_BT], 0).astype(values.dtype)
                for name, values in self.token_targets.items()
            },
        }


def _joined(
    rows: Iterable[Sequence[int]],
    second: Sequence[int],
    targets: Mapping[str, NDArray],
    token_targets: Mapping[str, NDArray],
) -> Rows:
    rows = list(rows)
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    ids_F = np.fromiter((token for row in rows for token in row), np.int32, int(starts[-1]))
    return Rows(ids_F, starts, np.asarray(second, np.int32), targets, token_targets)


def of_sentences(
    examples: Sequence[Example], tokenizer: Tokenizer, length: int, *, number: bool
) -> tuple[Rows, int]:
    """Returns `[CLS] first [SEP]` or `[CLS] first [SEP] second [SEP]`, and how many were cut.

    Texts that do not fit into `length` lose tokens at their ends, the longer one first (BERT). The
    target is `labels`: int32 classes, or float32 where the task is a `number`.
    """
    firsts = tokenizer.encode([example.first for example in examples])
    pairs = [example.second is not None for example in examples]
    seconds = tokenizer.encode([example.second or "" for example in examples])
    rows, second, cut = [], [], 0
    for first_ids, second_ids, is_pair in zip(firsts, seconds, pairs, strict=True):
        room = length - (3 if is_pair else 2)
        kept_first, kept_second = _fitting(len(first_ids), len(second_ids), room)
        cut += kept_first + kept_second < len(first_ids) + len(second_ids)
        row = [tokenizer.cls, *first_ids[:kept_first], tokenizer.sep]
        second.append(len(row))
        rows.append([*row, *second_ids[:kept_second], tokenizer.sep] if is_pair else row)
    labels = [example.label for example in examples]
    targets = {}
    if all(label is not None for label in labels):
        targets["labels"] = np.array(labels, np.float32 if number else np.int32)
    return _joined(rows, second, targets, {}), cut


def _fitting(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts stay when the longer one (the second if equal) is cut first."""
    if first + second <= room:
        return first, second
    kept_second = min(second, max(room // 2, room - first))
    return room - kept_second, kept_second


def of_words(sentences: Sequence[Tagged], tokenizer: Tokenizer, length: int) -> tuple[Rows, int]:
    """Returns `[CLS] words [SEP]` of sentences of words, and how many of these were cut.

    The targets are `labels` and `label_weights` of every token: a word is learnt and predicted at
    its first piece (BERT, section 5.3). A word without pieces becomes the unknown token.
    """
    rows, labels, weights, cut = [], [], [], 0
    for sentence in sentences:
        row, row_labels, row_weights = [tokenizer.cls], [0], [0.0]
        tags = sentence.tags or (0,) * len(sentence.words)
        for ids, tag in zip(tokenizer.encode(sentence.words), tags, strict=True):
            pieces = ids or [tokenizer.unk]
            row += pieces
            row_labels += [tag] + [0] * (len(pieces) - 1)
            row_weights += [1.0] + [0.0] * (len(pieces) - 1)
        cut += len(row) > length - 1
        rows.append([*row[: length - 1], tokenizer.sep])
        labels += [*row_labels[: length - 1], 0]
        weights += [*row_weights[: length - 1], 0.0]
    targets = {
        "labels": np.array(labels, np.int32),
        "label_weights": np.array(weights, np.float32),
    }
    return _joined(rows, [len(row) for row in rows], {}, targets), cut
