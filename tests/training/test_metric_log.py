"""Meters: which rows are published and when, what survives a kill, and what the rates leave out."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
from rich.console import Console

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.training import metric_log as metrics_lib
from mobilebert_jax.training.metric_log import Meters, floats_of, json_safe, read_rows
from tests import miniature


class Clock:
    """Stands in for the `time` module; moves only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(metrics_lib, "time", clock)
    yield clock


def _meters(directory: Path, stop: int, **changes: Any) -> Meters:
    settings: dict[str, Any] = {
        "start": 0, "log_every": 4, "console": miniature.console(),
    }  # fmt: skip
    return Meters(directory, "teacher", stop=stop, **{**settings, **changes})


def _steps(directory: Path) -> list[int]:
    return [int(row["step"]) for row in read_rows(directory / "metrics.jsonl")]


def _run(meters: Meters, steps: range) -> None:
    with meters:
        for step in steps:
            meters.push(step, {"loss": jnp.float32(step / 4), "nonfinite": jnp.int32(0)}, 100)


def test_the_last_and_every_nth_row_is_published(tmp_path: Path) -> None:
    _run(_meters(tmp_path, 11, start=2, log_every=4), range(2, 11))
    assert _steps(tmp_path) == [4, 8, 10]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    assert list(row) == ["step", "time", "tokens_per_s", "loss", "nonfinite"]
    assert row["loss"] == 1.0


def test_push_returns_the_row_of_the_step_before(tmp_path: Path) -> None:
    with _meters(tmp_path, 10) as meters:
        assert meters.push(0, {"loss": jnp.float32(7.0)}, 100) is None
        row = meters.push(1, {"loss": jnp.float32(6.0)}, 100)
        assert row is not None
        assert (row["step"], row["loss"]) == (0, 7.0)
        assert meters.push(2, {"loss": jnp.float32(5.0)}, 100) is None


def test_push_never_reads_the_step_that_may_still_be_computed(tmp_path: Path) -> None:
    class Unfinished:
        ready = False

        def __float__(self) -> float:
            assert self.ready, "read while the device still computes it"
            return 0.0

    with _meters(tmp_path, 3, log_every=1) as meters:
        for step in range(3):
            values = Unfinished()
            meters.push(step, {"loss": float(step), "nonfinite": values}, 100)
            values.ready = True


def test_a_nonfinite_step_is_published_whatever_its_number(tmp_path: Path) -> None:
    with _meters(tmp_path, 100, log_every=50) as meters:
        rows = []
        for step in range(8):
            bad = step == 5
            loss = jnp.float32(math.nan if bad else 1.0)
            rows.append(meters.push(step, {"loss": loss, "nonfinite": jnp.int32(bad)}, 100))
    assert [row["step"] for row in rows if row] == [0, 5]
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()[1]
    assert json.loads(text, parse_constant=pytest.fail)["loss"] == "NaN"
    assert math.isnan(read_rows(tmp_path / "metrics.jsonl")[1]["loss"])


def test_what_is_pending_is_published_when_an_exception_ends_the_stage(tmp_path: Path) -> None:
    with pytest.raises(KeyError), _meters(tmp_path, 9) as meters:
        meters.push(0, {"loss": jnp.float32(3.0)}, 100)
        raise KeyError("stop")
    assert _steps(tmp_path) == [0]


def test_a_row_is_on_disk_as_soon_as_it_is_published(tmp_path: Path) -> None:
    with _meters(tmp_path, 9, log_every=1) as meters:
        meters.push(0, {"loss": 3.0}, 100)
        meters.push(1, {"loss": 2.0}, 100)
        assert _steps(tmp_path) == [0]


def test_a_resumed_file_is_that_of_an_unbroken_run(tmp_path: Path, clock: Clock) -> None:
    _run(_meters(tmp_path / "unbroken", 13), range(13))
    broken = tmp_path / "broken"
    _run(_meters(broken, 13), range(10))
    path = broken / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 9, "time": 17')
    _run(_meters(broken, 13, start=8), range(8, 13))
    unbroken = read_rows(tmp_path / "unbroken" / "metrics.jsonl")
    assert [{**row, "tokens_per_s": 0} for row in read_rows(path)] == [
        {**row, "tokens_per_s": 0} for row in unbroken
    ]


def test_a_new_start_discards_the_rows_of_an_abandoned_one(tmp_path: Path) -> None:
    _run(_meters(tmp_path, 9), range(7))
    _run(_meters(tmp_path, 9), range(2))
    assert _steps(tmp_path) == [0]


def test_tensorboard_events_are_written_and_those_of_redone_steps_hidden(tmp_path: Path) -> None:
    _run(_meters(tmp_path, 9), range(9))
    _run(_meters(tmp_path, 9, start=4), range(4, 9))
    files = sorted((tmp_path / "tensorboard").iterdir())
    assert len(files) == 2
    assert all(b"teacher/loss" in file.read_bytes() for file in files)
    # SessionLog.START at the first step, which makes TensorBoard drop later steps of older files.
    assert any(b"\x10\x04" in file.read_bytes() for file in files if "from_4" in file.name)


def test_rates_leave_out_compilation_and_pauses(tmp_path: Path, clock: Clock) -> None:
    rows = []
    with _meters(tmp_path, 20, log_every=1) as meters:
        for step in range(20):
            if step in (0, 10):
                with meters.pausing(f"compiling layer {step}"):
                    clock.now += 400.0
            clock.now += 0.5
            rows.append(meters.push(step, {"loss": 1.0}, 100))
    # Each push looks at the step before: the first row comes after two intervals, hence 100.
    rates = [row["tokens_per_s"] for row in rows if row]
    assert rates[0] == pytest.approx(100.0)
    assert all(100.0 <= rate <= 200.0 for rate in rates)
    assert rates[-1] == pytest.approx(190.0, abs=1.0)


def test_the_share_of_the_peak_is_told_where_the_peak_is_known(
    tmp_path: Path, clock: Clock
) -> None:
    with _meters(tmp_path / "known", 3, log_every=1, peak_flops=1000.0) as meters:
        for step in range(3):
            clock.now += 2.0
            meters.push(step, {"loss": 1.0}, 100, flops=400.0)
    assert [row["mfu"] for row in read_rows(tmp_path / "known/metrics.jsonl")][-1] == pytest.approx(
        400.0 / 2.0 / 1000.0, rel=0.4
    )
    with _meters(tmp_path / "unknown", 1) as meters:
        meters.push(0, {"loss": 1.0}, 100, flops=400.0)
    assert "mfu" not in read_rows(tmp_path / "unknown/metrics.jsonl")[0]


def test_plain_lines_are_seldom_and_the_last_is_always_there(tmp_path: Path, clock: Clock) -> None:
    output = io.StringIO()
    console = Console(file=output, width=200)
    with _meters(tmp_path, 60, log_every=1, console=console) as meters:
        with meters.pausing("compiling teacher"):
            clock.now += 1.0
        for step in range(60):
            clock.now += 0.5
            meters.push(step, {"loss": 60.0 - step}, 100)
    lines = output.getvalue().splitlines()
    assert lines[0] == "teacher compiling teacher"
    assert len(lines) == 5
    assert lines[-1].startswith("teacher 60/60  loss 1 ")
    assert "tokens/s" in lines[1]
    assert lines[1].endswith("left")


def test_a_terminal_gets_one_progress_line(tmp_path: Path) -> None:
    output = io.StringIO()
    console = Console(file=output, width=160, force_terminal=True)
    with _meters(tmp_path, 3, log_every=1, console=console) as meters:
        for step in range(3):
            meters.push(step, {"loss": 2.5}, 100)
    assert "3/3" in output.getvalue()
    assert "loss 2.5" in output.getvalue()


def test_without_a_console_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _run(_meters(tmp_path, 5), range(5))
    assert capfd.readouterr() == ("", "")


def test_write_adds_a_row_of_its_own(tmp_path: Path) -> None:
    with _meters(tmp_path, 9) as meters:
        meters.write(3, {"held_out_loss": 2.0})
    assert [row["held_out_loss"] for row in read_rows(tmp_path / "metrics.jsonl")] == [2.0]


def test_json_safe_keeps_what_is_finite_and_floats_of_undoes_it() -> None:
    value = {"a": [1, 2.5, math.inf], "b": {"c": -math.inf, "d": "text", "e": None}}
    safe = json_safe(value)
    assert safe == {"a": [1, 2.5, "Infinity"], "b": {"c": "-Infinity", "d": "text", "e": None}}
    assert floats_of(json.loads(json.dumps(safe, allow_nan=False))) == value


@pytest.mark.parametrize("value", ['"text"', "null", "[1]", "1" + "0" * 400, "9" * 5_000])
def test_a_row_with_anything_but_numbers_is_damaged(tmp_path: Path, value: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 0, "loss": 1}}\n{{"step": 1, "loss": {value}}}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl:2 is damaged"):
        read_rows(path)
    path.write_text('{"step": "NaN"}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl:1 is damaged: its step is nan"):
        read_rows(path)
