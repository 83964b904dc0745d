"""The part of `benchmarks.gpu` that times this project's train steps, in a process of its own.

Programs are compiled in groups, in parallel threads, and measured one after the other while nothing
is compiled: a GPU's compiler tries kernels out on the GPU itself. A step runs on random parameters
and on full-length sequences of random words.
"""

import dataclasses
import functools
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import best_batch
from benchmarks.gpu_cases import (
    Case,
    Scale,
    cases,
    check_device,
    configured,
    first_batch,
    stage_of,
)
from benchmarks.gpu_check import check_cudnn
from benchmarks.kept_rows import KeptRows, Row, why
from benchmarks.student_step import make_batch
from mobilebert_jax import train
from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import Config, InputError, ModelConfig
from mobilebert_jax.model.layers import Network
from mobilebert_jax.plan import programs
from mobilebert_jax.plan.programs import Program
from mobilebert_jax.sharding.gpu_features import check_fused_attention
from mobilebert_jax.sharding.mesh import make_mesh, peak_flops
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout
from mobilebert_jax.training.step import Step

TABLE = "steps"
GROUP = 8
"""Programs that are compiled at once, where there are as many cores."""
ROUND_SECONDS = 90.0
"""What a group is assumed to take before one has been seen."""

Pair = tuple[Case, int]
"""A step and its batch."""


class Made(NamedTuple):
    """A compiled step, or a row that says why there is none."""

    program: Program | None
    step: Any
    row: Row


def key_of(pair: Pair) -> str:
    case, batch = pair
    return f"{case.label}, batch {batch}"


def tried(kept: KeptRows, case: Case) -> dict[int, float | None]:
    """Returns what is known of a case: sequences/s by batch, None where it did not run."""
    rows = kept.rows(TABLE).values()
    return {row["batch"]: row.get("sequences_per_s") for row in rows if row["case"] == case.label}


def open_pairs(kept: KeptRows, scale: Scale) -> list[Pair]:
    """Returns what is to be measured next: of each case that is not finished one batch.

    A case that differs from a plain one only by how it is computed waits for that one's best batch.
    """
    found = []
    for case in cases(scale):
        if case != case.plain and _next_batch(kept, case.plain, scale) is not None:
            continue
        batch = _next_batch(kept, case, scale)
        if batch is not None:
            found.append((case, batch))
    return found


def _next_batch(kept: KeptRows, case: Case, scale: Scale) -> int | None:
    """Returns the batch at which a case is to be measured next, None where that is over."""
    rows = kept.rows(TABLE).values()
    if any(row["case"] == case.label and "failed" in row for row in rows):
        return None
    first = first_batch(case, scale)
    if case != case.plain:
        first = best_batch.best(tried(kept, case.plain)) or first
    batch = best_batch.next_batch(tried(kept, case), first, scale.most_batch)
    if batch is None or kept.is_given_up(key_of((case, batch))):
        return None
    return batch


def run(kept: KeptRows, scale: Scale, until: float, call: int) -> bool:
    """Measures what is open until `until` (`time.time`); returns whether everything is there."""
    check_device(jax.devices()[0].platform == "gpu", scale)
    layout = Layout(make_mesh(Mesh(), jax.devices()[:1]))
    longest = 0.0
    while pairs := open_pairs(kept, scale):
        # What ended the process before is compiled and run alone, after the others.
        pairs.sort(key=lambda pair: kept.attempts(key_of(pair)))
        alone = kept.attempts(key_of(pairs[0])) > 0
        group = pairs[: 1 if alone else min(GROUP, os.cpu_count() or 1)]
        if time.time() + (longest or ROUND_SECONDS) > until:
            return False
        began = time.time()
        if any(case.attention == "cudnn" for case, _ in group):
            check_cudnn(kept, layout)
        kept.begin([key_of(pair) for pair in group])
        with ThreadPoolExecutor(len(group)) as threads:
            compiling = functools.partial(compile_pair, layout=layout, scale=scale)
            made = list(threads.map(compiling, group))
        for pair in group:  # programs that have been measured go, with what memory they hold
            row = measure(pair, made.pop(0), scale, layout) | {"call": call}
            kept.keep(TABLE, key_of(pair), row)
            print(_line(pair, row), flush=True)
        longest = max(longest, time.time() - began)
    return True


def _line(pair: Pair, row: Row) -> str:
    if "tokens_per_s" not in row:
        return f"{key_of(pair)}: {row.get('failed', 'out of memory')}"
    share = row["share_of_peak"]
    return (
        f"{key_of(pair)}: {row['milliseconds']:.1f} ms, {row['tokens_per_s']:,.0f} tokens/s"
        + (f", {share:.1%} of the peak" if share else "")
        + f", {row['gigabytes']:.1f} GB, compiled in {row['compile_seconds']:.0f} s"
    )


def compile_pair(pair: Pair, layout: Layout, scale: Scale) -> Made:
    """Compiles the step of a case at a batch; says why where it cannot."""
    case, batch = pair
    config = configured(case, scale, batch)
    began = time.perf_counter()
    try:
        models = (config.teacher.model, config.student)
        check_fused_attention(config.execution, layout.mesh, models)
        program = programs.program(config, layout, stage_of(case), case.layer)
        given = programs.arguments(program, layout)
        step = train.compile_step(
            program.training, program.phase, config.execution, given.state, given.batch, given.key
        )
    except InputError as error:
        return Made(None, None, {"failed": str(error)})
    except Exception as error:  # of XLA or of cuDNN: the row says so, and the others go on
        return Made(None, None, why(error))
    return Made(program, step, {"compile_seconds": time.perf_counter() - began})


def measure(pair: Pair, made: Made, scale: Scale, layout: Layout) -> Row:
    """Returns the row of a compiled step: speed, memory, loss of the first step, or why none."""
    case, batch = pair
    row: Row = {"case": case.label, **case._asdict(), "batch": batch} | made.row
    if made.program is None:
        return row
    row["gigabytes"] = _gigabytes(made.step)
    try:
        first_loss, windows = _timed(made.program, made.step, case, scale, batch, layout)
    except Exception as error:
        return row | why(error)
    figures = best_batch.speed(windows, batch, case.length)
    rate = made.program.phase.flops / figures["milliseconds"] * 1e3
    peak = peak_flops(layout.mesh)
    share = rate / peak if peak else None
    found = {"first_loss": first_loss, "teraflops": rate / 1e12, "share_of_peak": share}
    return row | figures | found


def _gigabytes(step: Any) -> float:
    """Returns the memory of a step by the compiler's own account; NaN where it gives none."""
    memory = step.memory_analysis()
    if memory is None:
        return math.nan
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    return float(held - memory.alias_size_in_bytes) / 1e9


def _timed(
    program: Program, step: Step, case: Case, scale: Scale, batch: int, layout: Layout
) -> tuple[float, list[float]]:
    """Runs a step; returns the loss of the first one, and seconds of a step by window."""
    training, config = program.training, configured(case, scale, batch)
    params = _params(training.network.config, layout)
    state = state_lib.start(params, training.network, training.optimizer, layout)
    number = jax.device_put(jnp.int32(program.phase.start), state.step.sharding)
    given = programs.arguments(program, layout)
    arrays = _batch(config, given.batch, batch)
    teacher = _teacher(config, training.teacher, layout)
    key = jax.device_put(jax.random.key(0), given.key.sharding)
    state, metrics = step(state._replace(step=number), teacher, arrays, key)
    first_loss = float(metrics["loss"])

    def steps(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, _ = step(state, teacher, arrays, key)
        jax.block_until_ready(state)

    return first_loss, best_batch.seconds_of_step(steps)


def _batch(config: Config, like: dict[str, Any], batch: int) -> dict[str, jax.Array]:
    made = make_batch(
        config.student.vocab_size,
        batch,
        config.data.max_seq_length,
        config.data.max_predictions_per_seq,
    )
    made["masked_lm_weights"] = np.ones(made["masked_lm_ids"].shape, np.float32)
    return {
        name: jax.device_put(made[name].astype(leaf.dtype), leaf.sharding)
        for name, leaf in like.items()
    }


def _teacher(config: Config, abstract: Any, layout: Layout) -> Any:
    """Returns random parameters of the teacher in the types in which a student's step reads it."""
    if abstract is None:
        return None
    params = _params(config.teacher.model, layout)
    return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), params, abstract)


def _params(model: ModelConfig, layout: Layout) -> Any:
    """Returns random parameters that share no buffer with others; a network's are made once."""
    plain = Network(dataclasses.replace(model, attention_probs_dropout_prob=0.0))
    return jax.tree.map(lambda leaf: leaf.copy(), _made_once(plain, layout))


@functools.lru_cache
def _made_once(network: Network, layout: Layout) -> Any:
    return state_lib.init_params(network, layout, seed=0, stream=0)
