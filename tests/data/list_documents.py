"""Documents in which no token occurs twice, so that each token tells where it comes from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PAD, CLS, SEP, MASK, SPECIALS = 0, 2, 3, 4, 5


class ListDocuments:
    """Documents whose sentences have the given lengths; `reads` counts those that were read."""

    def __init__(
        self,
        sentence_lengths: Sequence[Sequence[int]],
        weight: float = 1.0,
        first_token: int = SPECIALS,
    ):
        self.weight = weight
        self._lengths = [np.array(lengths, np.int32) for lengths in sentence_lengths]
        self.token_counts = np.array([n.sum(dtype=np.int64) for n in self._lengths])
        self.document_numbers = np.arange(len(self.token_counts))
        self.firsts = first_token + np.cumsum(self.token_counts) - self.token_counts
        self.vocabulary_size = first_token + int(self.token_counts.sum())
        self.reads = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        self.reads += 1
        first = self.firsts[index]
        tokens = np.arange(first, first + self.token_counts[index], dtype=np.int32)
        return tokens, self._lengths[index]

    def document_of(self, token: int) -> int:
        return int(np.searchsorted(self.firsts, token, side="right")) - 1
