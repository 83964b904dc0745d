"""Where the time went, over starts that ended well and starts that were killed."""

from pathlib import Path

import pytest

from mobilebert_jax.training import goodput as goodput_lib
from mobilebert_jax.training.goodput import Goodput, summary


class Clock:
    def __init__(self) -> None:
        self.now, self.wall = 50.0, 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        self.wall += 1.0
        return self.wall


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(goodput_lib, "time", clock)
    return clock


def start(folder: Path, clock: Clock, first: int, last: int) -> None:
    """One start: 2 s of restoring, 3 of compiling, then 1.5 s a step, a third of it input."""
    one = Goodput(folder)
    with one.spent("restore"):
        clock.now += 2.0
    one.first_step = first
    with one.spent("compile"):
        clock.now += 3.0
    for step in range(first, last + 1):
        with one.spent("input"):
            clock.now += 0.5
        clock.now += 1.0
        one.write(step)


def test_the_kinds_add_up_to_the_whole(tmp_path: Path, clock: Clock) -> None:
    start(tmp_path, clock, 0, 9)
    found = summary(tmp_path)
    seconds = found["seconds"]
    assert seconds == {
        "restore": 2.0, "compile": 3.0, "input": 5.0, "save": 0.0, "evaluation": 0.0,
        "training": 10.0, "total": 20.0,
    }  # fmt: skip
    assert (found["starts"], found["repeated_steps"], found["share"]) == (1, 0, 0.5)


def test_steps_done_again_after_a_kill_do_not_count(tmp_path: Path, clock: Clock) -> None:
    start(tmp_path, clock, 0, 9)
    start(tmp_path, clock, 6, 11)
    found = summary(tmp_path)
    assert (found["starts"], found["repeated_steps"]) == (2, 4)
    # 16 steps were done, 12 of them for good, of 20 s and 14 s.
    assert found["share"] == pytest.approx(12 / 34)


def test_a_clock_that_jumps_back_changes_no_duration(tmp_path: Path, clock: Clock) -> None:
    start(tmp_path, clock, 0, 9)
    clock.wall = -5000.0
    start(tmp_path, clock, 10, 11)
    found = summary(tmp_path)
    assert (found["starts"], found["repeated_steps"]) == (2, 0)
    assert found["seconds"]["total"] == 28.0


def test_a_row_torn_by_a_kill_is_left_out(tmp_path: Path, clock: Clock) -> None:
    start(tmp_path, clock, 0, 9)
    path = tmp_path / "goodput.jsonl"
    path.write_text(path.read_text() + '{"start": 1001.0, "proc')
    assert summary(tmp_path)["seconds"]["total"] == 20.0


def test_nothing_run_is_nothing_spent(tmp_path: Path) -> None:
    assert summary(tmp_path)["share"] == 0.0
