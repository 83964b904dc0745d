"""A plan for people: tables of memory, times and messages, none wider than 80 columns."""

from collections.abc import Sequence

import rich.console
import rich.table

from mobilebert_jax.config.schema import Config
from mobilebert_jax.pipeline import flops
from mobilebert_jax.plan import calibration, roofline
from mobilebert_jax.plan.collectives import totals
from mobilebert_jax.plan.job import Job, Stage, Step
from mobilebert_jax.plan.suggest import Tried, overrides

GB = 1e9
UNITS = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
FIGURES = ("from", "likely", "to")
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
    for one in (*_memory(job), *_times(job), _messages(job), *_stages(job)):
        console.print(one)
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


def table(title: str, *columns: str) -> rich.table.Table:
    """Returns an empty table; what does not fit its column is broken, never cut."""
    made = rich.table.Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return made


def _memory(job: Job) -> list[rich.table.Table]:
    each = job.topology.chip.devices
    parts = ("parameters", "moments", "teacher", "batch", "temporaries")
    held = table("memory of one chip, GB", "step", *parts)
    verdicts = table("of that", "step", "peak GB", "of", "", "")
    for step in _steps(job):
        memory = step.compiled.memory
        held.add_row(step.label, *(f"{each * getattr(memory, part) / GB:.2f}" for part in parts))
        verdicts.add_row(
            step.label,
            f"{each * memory.peak / GB:.2f}",
            f"{each * step.memory_per_device / GB:.1f}",
            "fits" if step.fits else "[bold red]does not fit[/]",
            step.compiled.source,
        )
    return [held, verdicts]


def _times(job: Job) -> list[rich.table.Table]:
    causes = table("one step, ms", "step", "PFLOPs", "compute", "memory", "network", "compiler")
    whole = table("together, ms", "step", *FIGURES)
    for step in _steps(job):
        times = step.times
        alone = (times.compute, times.memory, times.network + times.between, times.compiler)
        causes.add_row(
            step.label,
            f"{step.flops / 1e15:.3g}",
            *("" if seconds is None else f"{seconds * 1e3:.1f}" for seconds in alone),
        )
        whole.add_row(
            step.label, *figures([1e3 * s for s in (times.low, times.likely, times.high)])
        )
    return [causes, whole]


def _messages(job: Job) -> rich.table.Table:
    messages = table("messages of one step", "step", "kind", "number", "MB")
    for step in _steps(job):
        for kind, (count, size) in totals(step.compiled.collectives).items():
            messages.add_row(step.label, kind, f"{count:,}", f"{size / 1e6:,.0f}")
    return messages


def _stages(job: Job) -> list[rich.table.Table]:
    unit, name = unit_of(job.high_s)
    times = table(f"the job, {name}", "stage", "steps", *FIGURES)
    sizes = table("its stages", "stage", "parameters", "MFU, likely", "MFU, to")
    for stage in job.stages:
        label = stage.name + (" (interpolated)" if stage.interpolated else "")
        seconds = (stage.low_s, stage.likely_s, stage.high_s)
        times.add_row(label, f"{stage.steps:,}", *figures([s / unit for s in seconds]))
        sizes.add_row(
            stage.name,
            f"{stage.parameters:,}",
            f"{_utilisation(job, stage, stage.likely_s):.0%}",
            f"{_utilisation(job, stage, stage.high_s):.0%}",
        )
    seconds = (job.low_s, job.likely_s, job.high_s)
    times.add_row("all", "", *figures([s / unit for s in seconds]))
    return [times, sizes]


def _utilisation(job: Job, stage: Stage, seconds: float) -> float:
    """Share of the chips' peak that the model FLOPs of a stage are, if it takes `seconds`."""
    work = flops.stage_flops(job.config, stage.name)
    return work / seconds / (job.topology.chip.peak_flops * job.topology.chips)


def figures(numbers: Sequence[float]) -> list[str]:
    """Returns numbers of one kind as text, with as many digits as the largest needs."""
    largest = max(numbers)
    digits = 0 if largest >= 100 else 1 if largest >= 10 else 2
    return [f"{number:,.{digits}f}" for number in numbers]


def unit_of(seconds: float) -> tuple[float, str]:
    """Returns the unit in which a time is written: its seconds and its name."""
    return next((u for u in UNITS if seconds >= u[0]), UNITS[-1])


def _notes(job: Job) -> list[str]:
    chip = job.topology.chip
    compiled = _steps(job)[0].times.compiler is not None
    notes = [
        f"chip: {chip.peak_flops / 1e12:.0f} bfloat16 TFLOP/s, "
        f"{chip.memory_bandwidth / GB:.0f} GB/s memory, "
        f"{chip.interconnect / GB:.0f} GB/s interconnect; between slices "
        f"{chip.host_network / GB:.0f} GB/s a host (makers' metrics)",
        "times: from the slowest of compute, memory and network alone, at those metrics, to "
        + (
            "the compiler's estimate "
            if compiled
            else f"arithmetic at {roofline.MATRIX_EFFICIENCY:.0%} of the peak and memory at "
            f"{roofline.MEMORY_EFFICIENCY:.0%}, one after the other, "
        )
        + f"plus the network at {roofline.NETWORK_EFFICIENCY:.0%}. Evaluation comes on top, and "
        "what is lost beside the steps, below. MFU is the share of the peak that model FLOPs are",
        f"likely: {calibration.words(chip.name, compiled)}",
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
    unit, name = unit_of(max((one.job.high_s for one in tried if one.job.fits), default=0.0))
    shown = table("tried", "settings", "fits", *(f"{figure}, {name}" for figure in FIGURES))
    for one in tried:
        flags = " ".join(overrides(config, one.config.execution)) or "as they are"
        job, times = one.job, ["", "", ""]
        if job.fits:
            times = figures([s / unit for s in (job.low_s, job.likely_s, job.high_s)])
        fits = "yes" if job.fits else "no"
        shown.add_row(flags.replace("--config.execution.", ""), fits, *times)
    console.print(shown)
    if not tried or not tried[0].job.fits:
        console.print("nothing that was tried fits; take more chips, or chips with more memory")
        return
    best = " ".join(overrides(config, tried[0].config.execution))
    console.print(f"best: {best or 'the settings as they are'}", markup=False)
