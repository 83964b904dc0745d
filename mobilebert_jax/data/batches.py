"""What every stream of training batches is: batches by step number, some of them made ahead."""

import abc
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from numpy.typing import NDArray

Batch = dict[str, NDArray]


class Batches(abc.ABC):
    """Batches by step: `batches[step]` is a pure function of the stream's settings and of `step`.

    Every array of a batch has the leading axis `rows`: of the `batch_size` rows of the global batch
    those that this process feeds to its devices. All have `input_ids`, [rows, T].
    """

    def __init__(self, batch_size: int, rows: Sequence[int]) -> None:
        self.batch_size = batch_size
        """Rows of the global batch."""
        self.rows = rows
        """Rows that this process makes."""

    @abc.abstractmethod
    def __getitem__(self, step: int) -> Batch:
        """Returns this process's rows of the global batch of `step`."""

    @abc.abstractmethod
    def tokens(self, start: int, stop: int) -> int:
        """Returns the tokens, padding included, of the global batches `start` to `stop` - 1."""

    def iterate(self, start: int, stop: int, prefetch: int) -> Iterator[Batch]:
        """Yields the batches of steps `start` to `stop` - 1, with up to `prefetch` more made ahead.

        They are made in one background thread, which ends with the iterator. An error there is
        raised here, at the step that it belongs to. Raises ValueError unless `prefetch` >= 1.
        """
        if prefetch < 1:
            raise ValueError(f"prefetch={prefetch} must be at least 1")
        ahead: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:
            try:
                for step in range(start, stop):
                    while len(ahead) < min(prefetch + 1, stop - step):
                        ahead.append(thread.submit(self.__getitem__, step + len(ahead)))
                    yield ahead.popleft().result()
            finally:
                thread.shutdown(cancel_futures=True)
