"""The record of a stage while it trains: metrics.jsonl, TensorBoard events and one progress line.

Metrics arrive as device arrays that are not computed yet. Each push therefore reads the metrics of
the step before, so that the host always has one step in flight and the device never waits for it.
"""

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import tensorboardX
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.number_format import compact, duration

RATE_WINDOW = 50
"""Steps over which tokens per second are averaged."""
PLAIN_SECONDS = 10.0
"""Least time between two plain lines where there is no terminal."""

Metrics = Mapping[str, jax.Array | float]


class Meters:
    """Publishes the metrics of steps `start` to `stop - 1` of one stage; a context manager.

    A row is published for the last step, for every `log_every`th, and for each step whose
    `nonfinite` or `spike` is above 0. Only process 0 writes files. `peak_flops` is what all devices
    could compute in a second; where it is known, rows hold the share that was used. Rows of steps
    from `start` on that an interrupted run left behind are removed, so that the file is what an
    unbroken run would have written.
    """

    def __init__(
        self,
        directory: Path,
        stage: str,
        *,
        start: int,
        stop: int,
        log_every: int,
        console: Console,
        peak_flops: float | None = None,
    ) -> None:
        self._start, self._stop = start, stop
        self._log_every = log_every
        self._pending: tuple[int, Metrics, int, float] | None = None
        self._peak_flops = peak_flops
        self._paused = 0.0
        self._finished: deque[_Finished] = deque(maxlen=RATE_WINDOW + 1)
        self._files = _Files(directory, stage, start) if jax.process_index() == 0 else None
        self._line = _ProgressLine(console, stage, start, stop)

    def __enter__(self) -> "Meters":
        self._finished.append(_Finished(self._now(), 0, 0.0))
        self._line.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self._line.close()
            if self._files is not None:
                self._files.close()

    def push(
        self, step: int, metrics: Metrics, tokens: int, flops: float = 0.0
    ) -> dict[str, float] | None:
        """Keeps the metrics of `step` and returns the row of the step before, if it is published.

        `tokens` and model `flops` are those of the step's batch. The row holds step, time (seconds
        since 1970), tokens_per_s, every metric as a float and, where flops and the devices' peak
        are known, `mfu`: the share of the peak that was used.
        """
        for value in metrics.values():
            if isinstance(value, jax.Array):
                value.copy_to_host_async()
        row = self.flush()
        self._pending = (step, metrics, tokens, flops)
        return row

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a row of its own, such as held-out losses at `step`, at once."""
        if self._files is not None:
            self._files.write({"step": step, "time": time.time(), **metrics})

    def keep(self) -> None:
        """Returns when all that was published is where a new start finds it."""
        if self._files is not None:
            self._files.keep()

    @contextlib.contextmanager
    def pausing(self, label: str) -> Iterator[None]:
        """Shows `label` and keeps the time spent inside out of the rates."""
        if self._pending is not None:
            # The step in flight would otherwise finish in time that does not count.
            jax.block_until_ready(self._pending[1])
        began = time.monotonic()
        self._line.note(label)
        try:
            yield
        finally:
            self._paused += time.monotonic() - began
            self._line.note("")

    def flush(self) -> dict[str, float] | None:
        """Publishes the step whose metrics are still kept, if it is due, and returns its row."""
        if self._pending is None:
            return None
        step, metrics, tokens, flops = self._pending
        self._pending = None
        # Reading even one number waits for the step, which is what the rate has to measure.
        left_out = float(metrics.get("nonfinite", 0.0)) + float(metrics.get("spike", 0.0))
        publish = step == self._stop - 1 or step % self._log_every == 0 or left_out > 0
        # The first step of a start is shown at once; only rows of an unbroken run are written.
        read = publish or step == self._start
        values = {k: float(v) for k, v in jax.device_get(dict(metrics)).items()} if read else {}
        before = self._finished[-1]
        self._finished.append(_Finished(self._now(), before.tokens + tokens, before.flops + flops))
        taken = _since(self._finished[0], self._finished[-1])
        rate = taken.tokens / taken.at
        seconds_left = (self._stop - 1 - step) * taken.at / (len(self._finished) - 1)
        self._line.update(step + 1, values.get("loss"), rate, seconds_left)
        if not publish:
            return None
        row = {"step": step, "time": time.time(), "tokens_per_s": rate, **values}
        if self._peak_flops and flops:
            row["mfu"] = taken.flops / taken.at / self._peak_flops
        if self._files is not None:
            self._files.write(row)
        return row

    def _now(self) -> float:
        """Returns the seconds of a clock that stands still in pauses."""
        return time.monotonic() - self._paused


class _Finished(NamedTuple):
    """When a step ended, and the tokens and FLOPs of all steps up to it."""

    at: float
    tokens: int
    flops: float


def _since(first: _Finished, last: _Finished) -> _Finished:
    """Returns seconds, tokens and FLOPs from one step's end to another's."""
    seconds = max(last.at - first.at, 1e-9)
    return _Finished(seconds, last.tokens - first.tokens, last.flops - first.flops)


class _Files:
    """metrics.jsonl and the TensorBoard events of one stage."""

    def __init__(self, directory: Path, stage: str, start: int) -> None:
        storage.make_folder(directory)
        path = directory / "metrics.jsonl"
        _remove_rows_from(path, start)
        self._rows = storage.Lines(path)
        self._folder = storage.Written(directory / "tensorboard")
        # The suffix keeps two starts within one second from sharing, and truncating, one file.
        self._events = tensorboardX.SummaryWriter(
            str(self._folder.local), purge_step=start, filename_suffix=f".from_{start}"
        )
        self._stage = stage

    def write(self, row: Mapping[str, float]) -> None:
        # A lost peer aborts the process without any handler: what is not flushed now is lost.
        self._rows.append(json.dumps(json_safe(row), allow_nan=False) + "\n")
        for name, value in row.items():
            if name not in ("step", "time"):
                self._events.add_scalar(
                    f"{self._stage}/{name}", value, int(row["step"]), walltime=row["time"]
                )
        self._events.flush()

    def keep(self) -> None:
        self._rows.keep()
        self._folder.keep()

    def close(self) -> None:
        self._events.close()
        self.keep()


class _ProgressLine:
    """One live line on a terminal; otherwise a plain line every PLAIN_SECONDS at most."""

    def __init__(self, console: Console, stage: str, start: int, stop: int) -> None:
        self._console, self._stage, self._stop = console, stage, stop
        self._text, self._last, self._printed = "", "", -math.inf
        self._loss = math.nan
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[text]}"),
                TextColumn("[dim]{task.fields[note]}"),
                console=console,
            )
            self._task = self._progress.add_task(
                stage, total=stop, completed=start, text="", note=""
            )

    def open(self) -> None:
        if self._progress is not None:
            self._progress.start()

    def note(self, note: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, note=note)
        elif note:
            self._print(f"{self._stage} {note}")

    def update(self, done: int, loss: float | None, rate: float, seconds_left: float) -> None:
        self._loss = self._loss if loss is None else loss
        parts = [f"loss {self._loss:.4g}", f"{compact(rate)} tokens/s"]
        parts += [f"{duration(seconds_left)} left"] if done < self._stop else []
        text = "  ".join(parts)
        if self._progress is not None:
            self._progress.update(self._task, completed=done, text=text)
            return
        self._text = f"{self._stage} {done}/{self._stop}  {text}"
        self._print(self._text)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        elif self._text != self._last:
            self._printed = -math.inf
            self._print(self._text)

    def _print(self, text: str) -> None:
        if time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed, self._last = time.monotonic(), text
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def json_safe(value: Any) -> Any:
    """Returns `value` with NaN and infinities as strings, which `float` reads back; valid JSON."""
    if isinstance(value, Mapping):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def floats_of(value: Any) -> Any:
    """Returns `value` with what `json_safe` wrote for NaN and infinities turned back to floats."""
    if isinstance(value, Mapping):
        return {key: floats_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [floats_of(item) for item in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def read_rows(path: Path) -> list[dict[str, float]]:
    """Returns the rows of a metrics.jsonl, numbers as floats; torn lines are left out.

    Returns no rows when there is no such file. Raises InputError for a row with anything but
    numbers.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # torn by a kill in the middle of a write
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number} is damaged: {error}") from None
        if isinstance(row, dict) and "step" in row:
            rows.append(_numbers(row, f"{path}:{number}"))
    return rows


def _numbers(row: Mapping[str, Any], where: str) -> dict[str, float]:
    try:
        found = {name: float(floats_of(value)) for name, value in row.items()}
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is damaged: {error}") from None
    if not math.isfinite(found["step"]):
        raise InputError(f"{where} is damaged: its step is {found['step']}")
    return found


def _remove_rows_from(path: Path, start: int) -> None:
    kept = []
    for row in read_rows(path):
        if row["step"] < start:
            kept.append(json.dumps(json_safe({**row, "step": int(row["step"])})) + "\n")
    storage.write(path, "".join(kept))
