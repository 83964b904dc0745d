"""Batches of labelled rows: short rows with short ones, padded to one of a few lengths.

A batch costs what its longest row costs, and every length is a program of its own. So rows of like
length come together, and lengths are rounded up to quarters of the longest.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.data.batches import Batch, Batches
from mobilebert_jax.finetune.features import FILLER, Rows

POOL_BATCHES = 32
"""Batches that are formed together out of shuffled rows: more pad less and mix less."""
QUARTERS = 4
_MULTIPLE = 8  # of a length, which vector units like


class Plan(NamedTuple):
    """The batches of an epoch: which rows, and padded to how many tokens."""

    rows: NDArray[np.int64]
    """[steps, batch size], `FILLER` where there is none."""
    lengths: list[int]
    """[steps]"""


class TrainingBatches(Batches):
    """Endless epochs over `rows`, every row once in each, shuffled anew."""

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        length: int,
        pad: int,
        seed: int,
        rows_of_process: Sequence[int],
    ) -> None:
        super().__init__(batch_size, rows_of_process)
        self._rows, self._length, self._pad, self._seed = rows, length, pad, seed
        self._plans: dict[int, Plan] = {}

    @property
    def epoch_steps(self) -> int:
        return math.ceil(len(self._rows) / self.batch_size)

    def __getitem__(self, step: int) -> Batch:
        epoch, index = divmod(step, self.epoch_steps)
        plan = self._plan(epoch)
        return self._rows.batch(plan.rows[index][self.rows], plan.lengths[index], self._pad)

    def tokens(self, start: int, stop: int) -> int:
        epochs = range(start // self.epoch_steps, -(-stop // self.epoch_steps))
        lengths = [length for epoch in epochs for length in self._plan(epoch).lengths]
        first = epochs.start * self.epoch_steps
        return self.batch_size * sum(lengths[start - first : stop - first])

    def _plan(self, epoch: int) -> Plan:
        if epoch not in self._plans:
            made = shuffled(self._rows.lengths_N, self.batch_size, self._length, self._seed, epoch)
            # The thread that makes batches ahead may be an epoch further than the one that counts.
            self._plans = {**dict(list(self._plans.items())[-1:]), epoch: made}
            return made
        return self._plans[epoch]


class ScoringBatches(Batches):
    """Every row once, in order of length; the last batch is filled up."""

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        length: int,
        pad: int,
        rows_of_process: Sequence[int],
    ) -> None:
        super().__init__(batch_size, rows_of_process)
        self._rows, self._pad = rows, pad
        order = np.argsort(rows.lengths_N, kind="stable")
        self.plan = _in_batches(order, rows.lengths_N, batch_size, length)

    def __len__(self) -> int:
        return len(self.plan.lengths)

    def __getitem__(self, step: int) -> Batch:
        chosen = self.plan.rows[step][self.rows]
        return self._rows.batch(chosen, self.plan.lengths[step], self._pad)

    def tokens(self, start: int, stop: int) -> int:
        return self.batch_size * sum(self.plan.lengths[start:stop])


def shuffled(
    lengths_N: NDArray[np.int64], batch_size: int, length: int, seed: int, epoch: int
) -> Plan:
    """Returns the batches of `epoch`, a pure function of the arguments.

    Rows are shuffled, sorted by length within pools of `POOL_BATCHES` batches, and the batches
    shuffled again.
    """
    draw = np.random.Philox(key=[seed, epoch]).random_raw  # its stream never changes with versions
    order = np.argsort(draw(len(lengths_N)), kind="stable")
    pool = POOL_BATCHES * batch_size
    pools = [order[start : start + pool] for start in range(0, len(order), pool)]
    by_length = [part[np.argsort(lengths_N[part], kind="stable")] for part in pools]
    plan = _in_batches(np.concatenate(by_length), lengths_N, batch_size, length)
    mixed = np.argsort(draw(len(plan.lengths)), kind="stable")
    return Plan(plan.rows[mixed], [plan.lengths[i] for i in mixed])


def _in_batches(
    order: NDArray[np.int64], lengths_N: NDArray[np.int64], batch_size: int, length: int
) -> Plan:
    steps = math.ceil(len(order) / batch_size)
    filled = np.full(steps * batch_size, FILLER, np.int64)
    filled[: len(order)] = order
    rows = filled.reshape(steps, batch_size)
    longest = np.where(rows == FILLER, 0, lengths_N[rows]).max(axis=1)
    return Plan(rows, [padded_length(int(n), length) for n in longest])


def padded_length(longest: int, length: int) -> int:
    """Returns the least allowed length of a batch whose longest row has `longest` tokens."""
    for quarter in range(1, QUARTERS):
        allowed = -(-length * quarter // QUARTERS // _MULTIPLE) * _MULTIPLE
        if longest <= allowed < length:
            return allowed
    return length
