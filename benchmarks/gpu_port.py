"""The part of `benchmarks.gpu` that times Hugging Face's MobileBERT, in a process of its own.

The same work as the student's step: forward, backward and optimiser, full-length sequences, the
same length and batch (half of it, and so on, where memory ends), under bfloat16 autocast, without
dropout. AdamW, in PyTorch's fused form, stands for LAMB, which does more.
"""

import importlib.util
import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks import best_batch, gpu_steps
from benchmarks.gpu_cases import Case, Scale, check_device, configured, first_batch
from benchmarks.kept_rows import KeptRows, Row, why
from benchmarks.student_step import make_batch, torch_step
from mobilebert_jax.pipeline import flops

TABLE = "port"
STEP_SECONDS = 60.0
"""What a measurement is assumed to take, most of it compilation."""


class Variant(NamedTuple):
    """One way in which the port computes the student's step."""

    length: int
    attention: str
    compiled: bool

    @property
    def label(self) -> str:
        how = "torch.compile" if self.compiled else "uncompiled"
        return f"student, length {self.length}, {self.attention}, {how}"


def variants(scale: Scale) -> list[Variant]:
    """Returns all ways, those that are likely to be the fastest first."""
    ways = (("sdpa", True), ("sdpa", False), ("eager", True), ("eager", False))
    return [Variant(length, *way) for way in ways for length in scale.lengths]


def missing() -> list[str]:
    """Returns the packages that are not there."""
    return [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]


def open_variants(kept: KeptRows, scale: Scale) -> Iterator[tuple[Variant, int]]:
    """Yields what is to be measured, with its batch, which halves while it does not fit."""
    for variant in variants(scale):
        ours = Case("student", variant.length)
        batch: int = best_batch.best(gpu_steps.tried(kept, ours)) or first_batch(ours, scale)
        while kept.rows(TABLE).get(key_of(variant, batch), {}).get("out_of_memory") and batch > 1:
            batch //= 2
        key = key_of(variant, batch)
        if key not in kept.rows(TABLE) and not kept.is_given_up(key):
            yield variant, batch


def key_of(variant: Variant, batch: int) -> str:
    return f"{variant.label}, batch {batch}"


def run(kept: KeptRows, scale: Scale, until: float, call: int) -> bool:
    """Measures what is open until `until` (`time.time`); returns whether everything is there."""
    if missing():
        print(f"Hugging Face's MobileBERT: no {' and no '.join(missing())} here", flush=True)
        return False
    import torch

    check_device(torch.cuda.is_available(), scale)
    while (found := next(open_variants(kept, scale), None)) is not None:
        variant, batch = found
        if time.time() + STEP_SECONDS > until:
            return False
        key = key_of(variant, batch)
        kept.begin([key])
        row = measure(variant, scale, batch) | {"call": call}
        kept.keep(TABLE, key, row)
        print(f"Hugging Face: {key}: {_figures(row)}", flush=True)
    return True


def _figures(row: Row) -> str:
    if "tokens_per_s" not in row:
        return str(row.get("failed", "out of memory"))
    return f"{row['milliseconds']:.1f} ms, {row['tokens_per_s']:,.0f} tokens/s"


def measure(variant: Variant, scale: Scale, batch: int) -> Row:
    """Returns the row of a variant: speed and memory, or why it has none."""
    import torch

    config = configured(Case("student", variant.length), scale, batch)
    row: Row = {"variant": variant.label, **variant._asdict(), "batch": batch}
    on_gpu = torch.cuda.is_available()
    arrays = make_batch(
        config.student.vocab_size, batch, variant.length, config.data.max_predictions_per_seq
    )
    began = time.perf_counter()
    try:
        step = torch_step(
            config.student,
            arrays,
            variant.attention,
            autocast=True,
            device="cuda" if on_gpu else "cpu",
            compiled=variant.compiled,
        )

        def steps(count: int) -> None:
            for _ in range(count):
                step()
            if on_gpu:
                torch.cuda.synchronize()

        steps(1)
        row["compile_seconds"] = time.perf_counter() - began
        windows = best_batch.seconds_of_step(steps)
    except torch.OutOfMemoryError:
        return row | {"out_of_memory": True}
    except Exception as error:  # torch.compile's own among them
        return row | why(error)
    finally:
        torch.compiler.reset()
        torch.cuda.empty_cache()
    if on_gpu:
        row["gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
    figures = best_batch.speed(windows, batch, variant.length)
    rate = flops.step_flops(config, "baseline") / figures["milliseconds"] * 1e3
    return row | figures | {"teraflops": rate / 1e12}
