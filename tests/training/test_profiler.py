"""The window of steps that is traced."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.training import profiler
from mobilebert_jax.training.profiler import Profiler, Window


def test_a_window_is_two_numbers() -> None:
    assert profiler.parse("20:25") == Window(20, 25)
    assert profiler.parse("") is None


@pytest.mark.parametrize("text", ["20", "20-25", "25:20", "20:20", "a:b", "-1:3", ":"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must be FIRST:LAST"):
        profiler.parse(text)


@pytest.mark.parametrize(("last", "steps"), [(3, 6), (9, 6)])
def test_exactly_the_steps_of_the_window_are_traced(
    last: int, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced, running = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: running.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", running.clear)
    tracer = Profiler(Window(2, last), tmp_path)
    for number in range(steps):
        tracer.before(number)
        if running:
            traced.append(number)
    tracer.close()
    assert traced == list(range(2, min(last, steps)))
    assert not running


def test_a_trace_is_written(tmp_path: Path) -> None:
    tracer = Profiler(Window(0, 1), tmp_path / "profile")
    tracer.before(0)
    jnp.ones(3).block_until_ready()
    tracer.close()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
