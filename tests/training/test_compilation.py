"""Compiled steps: made once each, the next phases' ahead of need."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mobilebert_jax.training.compilation import Programs


def batch(rows: int = 2) -> dict[str, jax.Array]:
    return {"input_ids": jnp.zeros((rows, 4), jnp.int32)}


class Compiler:
    """Notes what it was asked for; holds back the phases in `held` until they are let go."""

    def __init__(self, *held: int, fails: int | None = None) -> None:
        self.asked: list[tuple[int, tuple[int, ...]]] = []
        self.doors = {phase: threading.Event() for phase in held}
        self.fails = fails

    def __call__(self, phase: int, shapes: Any) -> Any:
        assert isinstance(shapes["input_ids"], jax.ShapeDtypeStruct)
        self.asked.append((phase, shapes["input_ids"].shape))
        if phase in self.doors:
            assert self.doors[phase].wait(30)
        if phase == self.fails:
            raise MemoryError(f"phase {phase}")
        return f"step of phase {phase} for {shapes['input_ids'].shape}"


def until_ready(programs: Programs, phase: int) -> None:
    for _ in range(3000):
        if programs.is_ready(phase, batch()):
            return
        threading.Event().wait(0.01)
    pytest.fail(f"phase {phase} was never made")


def test_a_program_is_made_once_for_each_shape_of_batch() -> None:
    compiler = Compiler()
    with Programs(compiler, phases=1, ahead=1) as programs:
        assert not programs.is_ready(0, batch())
        for rows in (2, 2, 3, 2):
            assert programs.get(0, batch(rows)) == f"step of phase 0 for ({rows}, 4)"
        assert programs.is_ready(0, batch())
    assert compiler.asked == [(0, (2, 4)), (0, (3, 4))]


def test_the_next_phases_are_made_while_one_trains() -> None:
    compiler = Compiler()
    with Programs(compiler, phases=4, ahead=2) as programs:
        programs.get(0, batch())
        until_ready(programs, 1)
        until_ready(programs, 2)
        assert not programs.is_ready(3, batch())
        programs.get(1, batch())
        until_ready(programs, 3)
        assert programs.get(3, batch()) == "step of phase 3 for (2, 4)"
    assert sorted(phase for phase, _ in compiler.asked) == [0, 1, 2, 3]


def test_what_is_waited_for_is_made_alone() -> None:
    compiler = Compiler(0)
    with Programs(compiler, phases=2, ahead=1) as programs:
        waiting = threading.Thread(target=programs.get, args=(0, batch()))
        waiting.start()
        while not compiler.asked:
            threading.Event().wait(0.01)
        assert [phase for phase, _ in compiler.asked] == [0]
        compiler.doors[0].set()
        waiting.join()
        until_ready(programs, 1)


def test_nothing_is_made_ahead_unasked() -> None:
    compiler = Compiler()
    with Programs(compiler, phases=3, ahead=0) as programs:
        programs.get(0, batch())
        programs.get(1, batch())
    assert [phase for phase, _ in compiler.asked] == [0, 1]


def test_a_phase_that_cannot_be_compiled_stops_the_run_when_it_begins() -> None:
    with Programs(Compiler(fails=1), phases=2, ahead=1) as programs:
        programs.get(0, batch())
        until_ready(programs, 1)
        programs.get(0, batch())
        with pytest.raises(MemoryError, match="phase 1"):
            programs.get(1, batch())


def test_leaving_does_not_wait_for_what_is_no_longer_needed() -> None:
    compiler = Compiler(1)
    with Programs(compiler, phases=3, ahead=1) as programs:
        programs.get(0, batch())
        while len(compiler.asked) < 2:
            threading.Event().wait(0.01)
    compiler.doors[1].set()
    assert [phase for phase, _ in compiler.asked] == [0, 1]
