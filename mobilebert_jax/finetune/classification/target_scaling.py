"""Numbers as a network learns them: with mean 0 and deviation 1, whatever their unit.

A step of AdamW moves a parameter by about the learning rate, so that an output layer which begins
near 0 would never get to years or prices. Whoever opens a trial gets numbers as the file holds
them: mean and deviation are folded into the output layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mobilebert_jax.objective.loss_terms import Params


class Scale(NamedTuple):
    """What is learnt of a number is `(number - mean) / deviation`."""

    mean: float
    deviation: float

    def learnt(self, number: float) -> float:
        """Returns what the network is to say."""
        return (number - self.mean) / self.deviation

    def unfolded(self, params: Params) -> Params:
        """Returns parameters that say what was learnt of those that say numbers."""
        return _with_output(params, 1 / self.deviation, -self.mean / self.deviation)

    def folded(self, params: Params) -> Params:
        """Undoes `unfolded`."""
        return _with_output(params, self.deviation, self.mean)


UNCHANGED = Scale(0.0, 1.0)
"""Of classes, and of scores that a benchmark defines."""


def of(numbers: Sequence[float]) -> Scale:
    """Returns the scale of a training set."""
    return Scale(float(np.mean(numbers)), float(np.std(numbers)))


def _with_output(params: Params, factor: float, offset: float) -> Params:
    """Returns `params` whose task says `factor` times its output, plus `offset`."""
    dense = params["task"]["dense"]
    changed = {"kernel": dense["kernel"] * factor, "bias": dense["bias"] * factor + offset}
    return {**params, "task": {**params["task"], "dense": {**dense, **changed}}}
