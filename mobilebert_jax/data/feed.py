"""From a step number to the batch of that step: shuffled, repeated and mixed, with no state.

Row r of the batch of step t is position t * batch_size + r of one endless stream, whatever the
number of hosts: a host asks for its own rows of the global batch. A resumed run needs the step
number and nothing else.
"""

import hashlib
from collections.abc import Callable, Sequence

import grain
import numpy as np

from mobilebert_jax.config import schema
from mobilebert_jax.data import pairs, pretraining
from mobilebert_jax.data.batches import Batch, Batches
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.data.pretraining import Documents

_MOST_EXAMPLES = 2**32 - 1
"""Grain shuffles 32-bit indices."""


class Feed(Batches):
    """Pretraining batches of some documents; `rows` are all of the global batch by default.

    The arrays are those of `pretraining.examples`. Each source is shuffled anew every
    epoch, and the sources are mixed by their weights. Raises InputError for rows outside of the
    batch and for documents that no pairs can be made of.
    """

    def __init__(
        self,
        documents: Sequence[Documents],
        vocabulary: Vocabulary,
        data: schema.Data,
        *,
        batch_size: int,
        seed: int,
        rows: Sequence[int] | None = None,
    ) -> None:
        super().__init__(batch_size, _checked_rows(rows, batch_size))
        self.epoch_sizes: list[int] = []
        """Examples in an epoch of each source."""
        self._documents, self._vocabulary, self._data = documents, vocabulary, data
        self._seed = seed
        self._starts = []
        orders = []
        for number, source in enumerate(documents):
            _check_documents(source, number)
            starts = pairs.example_starts(source.token_counts, data.max_seq_length)
            self._starts.append(starts)
            self.epoch_sizes.append(_checked_epoch_size(int(starts[-1]), number))
            order = grain.MapDataset.range(self.epoch_sizes[-1])
            order = order.shuffle(seed=_shuffle_seed(seed, number)).repeat()
            orders.append(order.map_with_index(_named(number)))
        if not orders:
            raise schema.InputError("there are no documents to make examples of")
        weights = [source.weight for source in documents]
        self._order = orders[0] if len(orders) == 1 else grain.MapDataset.mix(orders, weights)

    def __getitem__(self, step: int) -> Batch:
        """Returns this host's rows of the global batch of `step`; raises IndexError below 0."""
        if step < 0:
            raise IndexError(f"step {step} is below 0")
        first = step * self.batch_size
        order = np.array([self._order[first + row] for row in self.rows])
        batch: Batch = {}
        for source in np.unique(order[:, 0]).tolist():
            mine = order[:, 0] == source
            made = pretraining.examples(
                self._documents[source],
                self._starts[source],
                index_B=order[mine, 2],
                epoch_B=order[mine, 1] // self.epoch_sizes[source],
                seed=self._seed,
                source=source,
                data=self._data,
                vocabulary=self._vocabulary,
            )
            for name, array in made.items():
                whole = batch.setdefault(
                    name, np.empty((len(order), *array.shape[1:]), array.dtype)
                )
                whole[mine] = array
        return batch

    def tokens(self, start: int, stop: int) -> int:
        """Returns the tokens, padding included, of the global batches `start` to `stop` - 1."""
        return (stop - start) * self.batch_size * self._data.max_seq_length


def _checked_rows(rows: Sequence[int] | None, batch_size: int) -> Sequence[int]:
    if batch_size < 1:
        raise schema.InputError(f"batch_size={batch_size} must be at least 1")
    if rows is None:
        return range(batch_size)
    if not rows or min(rows) < 0 or max(rows) >= batch_size:
        raise schema.InputError(f"rows {list(rows)} are not rows of a batch of {batch_size}")
    return rows


def _check_documents(documents: Documents, number: int) -> None:
    """An unusable source would otherwise fail hours later, at the first example that meets it."""
    count = len(np.unique(documents.document_numbers))
    if count < 2:
        raise schema.InputError(
            f"source {number} has {count} document(s); at least 2 are needed, because "
            "next-sentence prediction takes a random second segment from another document"
        )
    if len(documents.token_counts) != len(documents) or np.min(documents.token_counts) < 1:
        raise schema.InputError(
            f"source {number} counts the tokens of {len(documents.token_counts)} documents, the "
            f"fewest {np.min(documents.token_counts)}; it must count at least 1 for each of its "
            f"{len(documents)} documents: prepare the records again"
        )
    if not documents.weight > 0:
        raise schema.InputError(
            f"source {number} has weight {documents.weight}; it must be above 0"
        )


def _checked_epoch_size(size: int, number: int) -> int:
    if size > _MOST_EXAMPLES:
        raise schema.InputError(
            f"source {number} has {size} examples in an epoch; at most {_MOST_EXAMPLES} can be "
            "shuffled: give the files in several sources"
        )
    return size


def _shuffle_seed(seed: int, source: int) -> int:
    # Grain shuffles epoch e with seed + e: neighbouring seeds would repeat each other's epochs.
    digest = hashlib.blake2b(f"{seed}/{source}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def _named(source: int) -> Callable[[int, int], tuple[int, int, int]]:
    """Returns what puts the source before a position in its stream and the index there."""
    return lambda position, index: (source, position, index)
