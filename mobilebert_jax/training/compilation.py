"""The compiled steps of a stage; those of the next phases are made while one trains.

The compiler works in threads of its own and needs no accelerator: with 24 phases of layer-wise
transfer, all but the first program then cost no time in which a step could have run.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import jax

from mobilebert_jax.training.step import Step

Make = Callable[[int, Any], Step]
"""(number of a phase, shapes of a batch) -> its compiled step."""


class Programs:
    """Makes every program once, in order of need; a context, which ends its threads."""

    def __init__(self, make: Make, phases: int, ahead: int) -> None:
        """`make` compiles; `ahead` is how many phases after the present one are begun with it."""
        self._make, self._phases, self._ahead = make, phases, ahead
        self._threads = ThreadPoolExecutor(max(1, ahead))
        self._programs: dict[tuple[int, int], Future[Step]] = {}

    def __enter__(self) -> "Programs":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def is_ready(self, phase: int, batch: Mapping[str, jax.Array]) -> bool:
        """Whether `get` would return at once."""
        program = self._programs.get((phase, _tokens(batch)))
        return program is not None and program.done()

    def get(self, phase: int, batch: Mapping[str, jax.Array]) -> Step:
        """Returns the step of a phase for batches like this one, once it is compiled.

        Raises what its compilation raised. Programs of earlier phases are forgotten.
        """
        tokens = _tokens(batch)
        if (phase, tokens) not in self._programs:
            self._programs = {k: v for k, v in self._programs.items() if k[0] >= phase}
            self._begin(phase, batch)
        program = self._programs[phase, tokens].result()
        # Only now: what is waited for has the whole machine.
        for later in range(phase + 1, min(phase + 1 + self._ahead, self._phases)):
            if (later, tokens) not in self._programs:
                self._begin(later, batch)
        return program

    def _begin(self, phase: int, batch: Mapping[str, jax.Array]) -> None:
        made = self._threads.submit(self._make, phase, shapes(batch))
        self._programs[phase, _tokens(batch)] = made


def shapes(tree: Any) -> Any:
    """Returns shapes, types and shardings: what a program is compiled for, without the arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _tokens(batch: Mapping[str, jax.Array]) -> int:
    return batch["input_ids"].size
