"""The search for the fastest batch tries doublings, and knows when to stop."""

from collections.abc import Callable

import pytest

from benchmarks import best_batch


def search(speed: Callable[[int], float | None], first: int = 8, most: int = 64) -> list[int]:
    """Returns the batches that are tried, in order, of a step with that speed."""
    tried: dict[int, float | None] = {}
    while (batch := best_batch.next_batch(tried, first, most)) is not None:
        assert batch not in tried
        tried[batch] = speed(batch)
    return list(tried)


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        (lambda batch: float(batch), [8, 16, 32, 64]),
        (lambda batch: float(min(batch, 16)), [8, 16, 32]),
        (lambda batch: 1.0 + 0.02 * (batch > 8), [8, 16]),
        (lambda batch: 1.0 / batch, [8, 16]),
        (lambda batch: float(batch) if batch < 32 else None, [8, 16, 32]),
        (lambda batch: float(batch) if batch < 4 else None, [8, 4, 2]),
        (lambda batch: None, [8, 4, 2, 1]),
    ],
)
def test_batches_that_are_tried(speed: Callable[[int], float | None], expected: list[int]) -> None:
    assert search(speed) == expected


def test_the_best_is_the_fastest_that_fits() -> None:
    assert best_batch.best({8: 100.0, 16: 120.0, 32: 110.0, 64: None}) == 16
    assert best_batch.best({8: None}) is None
    assert best_batch.best({}) is None


def test_a_window_holds_as_many_steps_as_fill_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now, taken = [0.0], list[int]()

    def run(count: int) -> None:
        taken.append(count)
        now[0] += 0.2 * count + (3.0 if len(taken) == 1 else 0.0)  # the first is slow

    monkeypatch.setattr(best_batch.time, "perf_counter", lambda: now[0])
    assert best_batch.seconds_of_step(run) == pytest.approx([0.2] * 5)
    assert taken == [2, 1, 3, 3, 3, 3, 3]


def test_speed_is_that_of_the_median_window() -> None:
    found = best_batch.speed([0.5, 0.1, 0.2], batch=4, length=10)
    assert found == {
        "milliseconds": pytest.approx(200.0),
        "fastest_milliseconds": pytest.approx(100.0),
        "slowest_milliseconds": pytest.approx(500.0),
        "sequences_per_s": pytest.approx(20.0),
        "tokens_per_s": pytest.approx(200.0),
    }
