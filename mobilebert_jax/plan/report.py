"""A plan for people, as tables, and for programs, as JSON."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.table

from mobilebert_jax.artifacts import write_json
from mobilebert_jax.config.schema import Config
from mobilebert_jax.plan import roofline
from mobilebert_jax.plan.collectives import totals
from mobilebert_jax.plan.job import Job, Stage, Step
from mobilebert_jax.plan.suggest import Tried, overrides

GB = 1e9
_DURATIONS = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
MOST_LAYERS = 5
"""Layers of a transfer that tables show."""


def show(job: Job, console: rich.console.Console) -> None:
    """Prints memory, times and messages of a plan, and what they rest on."""
    topology, execution, chip = job.topology, job.config.execution, job.topology.chip
    console.print(
        f"{job.config.name} on {topology.name}: {topology.chips} x {chip.name}, "
        f"{topology.devices} devices in {topology.slices} slice(s); data x fsdp x model = "
        f"{job.cut.data} x {job.cut.fsdp} x {job.cut.model}, "
        f"micro_batches {execution.micro_batches}, remat {execution.remat} "
        f"(teacher {execution.remat_of('teacher')}), "
        f"fsdp shards {execution.fsdp_shard}",
        markup=False,
    )
    if topology.libtpu is None:
        console.print("no compiler for these runs here: everything is estimated, nothing compiled")
    console.print(_memory(job))
    console.print(_times(job))
    console.print(_stages(job))
    for line in _notes(job):
        console.print(line, markup=False)


def _steps(job: Job) -> list[Step]:
    """The steps that the tables show: of many layers of a transfer the ends and the middle."""
    shown: list[Step] = []
    for stage in job.stages:
        few = stage.measured
        if len(few) > MOST_LAYERS:
            few = (few[0], few[len(few) // 2], few[-1])
        shown += few
    return shown


def _table(title: str, *columns: str) -> rich.table.Table:
    table = rich.table.Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _memory(job: Job) -> rich.table.Table:
    each = job.topology.chip.devices
    parts = ("parameters", "moments", "teacher", "batch", "temporaries", "peak")
    table = _table("memory of one chip, GB", "step", *parts, "of", "", "")
    for step in _steps(job):
        memory = step.compiled.memory
        values = [f"{each * getattr(memory, part) / GB:.2f}" for part in parts]
        limit = f"{each * step.memory_per_device / GB:.1f}"
        verdict = "fits" if step.fits else "[bold red]does not fit[/]"
        table.add_row(step.label, *values, limit, verdict, step.compiled.source)
    return table


def _times(job: Job) -> rich.table.Table:
    table = _table(
        "one step", "step", "PFLOPs", "compute", "memory", "network", "compiler", "ms", "messages"
    )
    for step in _steps(job):
        times = step.times
        messages = ", ".join(
            f"{count} {kind} {size / 1e6:.0f} MB"
            for kind, (count, size) in totals(step.compiled.collectives).items()
        )
        table.add_row(
            step.label,
            f"{step.flops / 1e15:.3g}",
            *(
                "" if seconds is None else f"{seconds * 1e3:.1f}"
                for seconds in (
                    times.compute,
                    times.memory,
                    times.network + times.between,
                    times.compiler,
                )
            ),
            _range(times.low * 1e3, times.high * 1e3),
            messages,
        )
    return table


def _stages(job: Job) -> rich.table.Table:
    table = _table("the job", "stage", "parameters", "steps", "time", "MFU", "checkpoint GB")
    for stage in job.stages:
        table.add_row(
            stage.name + (" (interpolated)" if stage.interpolated else ""),
            f"{stage.parameters:,}",
            f"{stage.steps:,}",
            _duration(stage.low_s, stage.high_s),
            f"{_utilisation(job, stage):.0%}",
            f"{stage.checkpoint_bytes / GB:.2f}",
        )
    table.add_row("all", "", "", _duration(job.low_s, job.high_s), "", "")
    return table


def _utilisation(job: Job, stage: Stage) -> float:
    """Share of the chips' peak that the model FLOPs of a stage are, at its longest time."""
    work = sum(step.flops for step in stage.measured) / len(stage.measured)
    seconds = sum(step.times.high for step in stage.measured) / len(stage.measured)
    return work / seconds / (job.topology.chip.peak_flops * job.topology.chips)


def _range(low: float, high: float) -> str:
    digits = 0 if high >= 100 else 1 if high >= 10 else 2
    return f"{low:.{digits}f} - {high:.{digits}f}"


def _duration(low_s: float, high_s: float) -> str:
    unit, name = next(
        (size, name) for size, name in _DURATIONS if high_s >= size or name == _DURATIONS[-1][1]
    )
    return f"{_range(low_s / unit, high_s / unit)} {name}"


def _notes(job: Job) -> list[str]:
    chip = job.topology.chip
    notes = [
        f"chip: {chip.peak_flops / 1e12:.0f} bfloat16 TFLOP/s, "
        f"{chip.memory_bandwidth / GB:.0f} GB/s memory, "
        f"{chip.interconnect / GB:.0f} GB/s interconnect; between slices "
        f"{chip.host_network / GB:.0f} GB/s a host (makers' metrics)",
        "times: from the slowest of compute, memory and network alone, at those metrics, to "
        + (
            "the compiler's estimate "
            if _steps(job)[0].times.compiler
            else f"arithmetic at {roofline.MATRIX_EFFICIENCY:.0%} of the peak and memory at "
            f"{roofline.MEMORY_EFFICIENCY:.0%}, one after the other, "
        )
        + f"plus the network at {roofline.NETWORK_EFFICIENCY:.0%}; MFU is that of the longest "
        "time. Input, checkpoints and evaluation come on top",
    ]
    if any(stage.interpolated for stage in job.stages):
        notes.append("layers of the transfer between those compiled are interpolated")
    if any(not one.known for step in _steps(job) for one in step.compiled.collectives):
        notes.append("messages in loops of unknown length are counted once")
    if not job.fits:
        notes.append(
            "to fit: more execution.micro_batches, execution.remat=full, or a larger "
            "execution.mesh.fsdp (with execution.fsdp_shard=params_and_optimizer); --suggest "
            "searches for the fastest that fits"
        )
    return notes


def show_suggestion(config: Config, tried: Sequence[Tried], console: rich.console.Console) -> None:
    """Prints what was tried and the flags of the best."""
    table = _table("tried", "settings", "fits", "time")
    for one in tried:
        flags = " ".join(overrides(config, one.config.execution)) or "as they are"
        time = _duration(one.job.low_s, one.job.high_s) if one.job.fits else ""
        table.add_row(
            flags.replace("--config.execution.", ""), "yes" if one.job.fits else "no", time
        )
    console.print(table)
    if not tried or not tried[0].job.fits:
        console.print("nothing that was tried fits; take more chips, or chips with more memory")
        return
    best = " ".join(overrides(config, tried[0].config.execution))
    console.print(f"best: {best or 'the settings as they are'}", markup=False)


def write(path: Path, job: Job, tried: Sequence[Tried]) -> None:
    """Writes everything the tables show, and what they leave out, as JSON."""
    content = as_dict(job)
    content["tried"] = [
        {
            "execution": dataclasses.asdict(one.config.execution),
            "overrides": overrides(job.config, one.config.execution),
            **as_dict(one.job),
        }
        for one in tried
    ]
    write_json(path, content)


def as_dict(job: Job) -> dict[str, Any]:
    """Returns a plan as JSON holds it: bytes of one device, seconds, FLOPs of all devices."""
    return {
        "experiment": job.config.name,
        "topology": dataclasses.asdict(job.topology),
        "mesh": dataclasses.asdict(job.cut),
        "execution": dataclasses.asdict(job.config.execution),
        "fits": job.fits,
        "low_s": job.low_s,
        "high_s": job.high_s,
        "stages": [
            {
                "stage": stage.name,
                "steps": stage.steps,
                "parameters": stage.parameters,
                "checkpoint_bytes": stage.checkpoint_bytes,
                "interpolated": stage.interpolated,
                "low_s": stage.low_s,
                "high_s": stage.high_s,
                "measured": [_step_as_dict(step) for step in stage.measured],
            }
            for stage in job.stages
        ],
    }


def _step_as_dict(step: Step) -> dict[str, Any]:
    compiled = step.compiled
    return {
        "layer": step.layer,
        "flops": step.flops,
        "fits": step.fits,
        "source": compiled.source,
        "memory": {**dataclasses.asdict(compiled.memory), "peak": compiled.memory.peak},
        "memory_limit": step.memory_per_device,
        "traffic_bytes": compiled.traffic,
        "compiler_cycles": compiled.cycles,
        "compile_s": compiled.seconds,
        "times": dataclasses.asdict(step.times),
        "messages": {
            kind: {"count": count, "bytes": size}
            for kind, (count, size) in totals(compiled.collectives).items()
        },
    }
