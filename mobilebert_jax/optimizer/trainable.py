"""The part of the parameters that a phase of training changes.

In a phase of layer-wise transfer most parameters stay as they are, and so do their moments, which
are 0. Leaving them out of the update spares a pass over three copies of the whole network in every
step, which is longer than many of these steps take otherwise.
"""

import dataclasses
from typing import Any

import jax

from mobilebert_jax.optimizer.schedules import Multiplier
from mobilebert_jax.optimizer.stacked import StackedState

Tree = Any


@dataclasses.dataclass(frozen=True)
class Part:
    """Some blocks and nothing outside the blocks; by default all parameters."""

    blocks: tuple[int, int] | None = None
    """The first of them, and the first after them."""

    def of(self, tree: Tree) -> Tree:
        """Returns the part of a tree that is shaped like the parameters."""
        if self.blocks is None:
            return tree
        start, stop = self.blocks
        return {"blocks": jax.tree.map(lambda x: x[start:stop], tree["blocks"])}

    def of_multiplier(self, multiplier: Multiplier) -> Multiplier:
        """Returns the rates of the part."""
        if self.blocks is None:
            return multiplier
        start, stop = self.blocks
        return multiplier._replace(blocks_N=multiplier.blocks_N[start:stop])

    def put(self, tree: Tree, part: Tree) -> Tree:
        """Returns `tree` with `part` in the place that `of` took it from."""
        if self.blocks is None:
            return part
        start, stop = self.blocks
        put = jax.tree.map(lambda x, new: x.at[start:stop].set(new), tree["blocks"], part["blocks"])
        return {**tree, "blocks": put}

    def of_state(self, state: Any) -> Any:
        """Returns the part of an optimiser's state, of which the rest is passed through."""
        if self.blocks is None:
            return state
        start, stop = self.blocks

        def taken(found: Any) -> Any:
            if not isinstance(found, StackedState):
                return found
            return found._replace(blocks=jax.tree.map(lambda x: x[start:stop], found.blocks))

        return jax.tree.map(taken, state, is_leaf=_is_stacked_state)

    def put_state(self, state: Any, part: Any) -> Any:
        """Returns `state` with `part` in the place that `of_state` took it from."""
        if self.blocks is None:
            return part
        start, stop = self.blocks

        def put(old: Any, new: Any) -> Any:
            if not isinstance(old, StackedState):
                return new
            blocks = jax.tree.map(lambda x, y: x.at[start:stop].set(y), old.blocks, new.blocks)
            return StackedState(blocks, new.others)

        return jax.tree.map(put, state, part, is_leaf=_is_stacked_state)

    def seen(self, gradients: Tree) -> Tree:
        """Returns all gradients but those of blocks outside the part, which are 0."""
        return gradients if self.blocks is None else {**gradients, **self.of(gradients)}


def _is_stacked_state(found: Any) -> bool:
    return isinstance(found, StackedState)


EVERYTHING = Part()
