"""What does `--plan` say of jobs that were measured on TPUs and published?

    python -m benchmarks.published_jobs --out mobilebert_jax/plan/calibration.json
    python -m benchmarks.published_jobs --recorded

The first compiles the steps of every job for the TPU it ran on: 14 programs, half an hour or more
on two cores, with the package libtpu. What is already in `--out` is not compiled again. Both
print what was planned beside what was measured, and the factors that make the plan's figure
*likely*, each job predicted by the others alone (`plan/calibration.py`). `--recorded` only reads
the package's file.

Every job is planned as this project would run it, in the published precision of activations: for
BERT-Large, which was trained, and for this project's teacher in its place.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import rich.console

from mobilebert_jax.config.execution import Execution, Mesh, Remat
from mobilebert_jax.config.schema import Config, Data, Teacher, Tokenizer
from mobilebert_jax.model import sizes
from mobilebert_jax.plan import calibration, child_process, devices, roofline, topology
from mobilebert_jax.plan.calibration import STAND_IN, TRAINED, Comparison
from mobilebert_jax.plan.planner import Planner

NETWORKS = {TRAINED: sizes.BERT_LARGE, STAND_IN: sizes.IB_BERT_LARGE}
MOST_PIECES = 32


class Part(NamedTuple):
    """One kind of step of a job: those of one length."""

    batch: int
    length: int
    predictions: int
    share: float = 1.0
    """Of the job's steps."""
    remat: Remat = "feedforward"
    """Of BERT-Large: the fastest that fits, by the compiler's estimate. The stand-in has that of
    the published job."""


class Program(NamedTuple):
    """The steps of a job on the machine that they are compiled for."""

    topology: str
    precision: Literal["float32", "bfloat16"]
    parts: tuple[Part, ...]


class Published(NamedTuple):
    """A job of BERT-Large as its makers ran it, and what they measured."""

    name: str
    topology: str
    program: str
    measured_s: float
    """Seconds of all its steps."""
    source: str
    steps: int = 1
    whole_job: bool = False
    """Whether start, compilation, evaluation and checkpoints are within the measured time."""


V3, V4, V4_LARGE, LAMB = "MLPerf 0.7 v3-32", "MLPerf 1.0 v4-128", "MLPerf 1.0 v4-4096", "LAMB"
PROGRAMS = {
    V3: Program("v3-32", "bfloat16", (Part(448, 512, 76),)),
    # A core takes 58 sequences of up to 128 tokens, 30 of 256 or 16 of 512, 24.4 in the mean. That
    # leaves the mixture open between 20/0/80 and 0/60/40 %; this is its middle.
    V4: Program(
        "v4-128",
        "bfloat16",
        (Part(58 * 128, 128, 76, 0.1), Part(30 * 128, 256, 76, 0.3), Part(16 * 128, 512, 76, 0.6)),
    ),
    V4_LARGE: Program("v4-4096", "bfloat16", (Part(6144, 512, 76, remat="none"),)),
    # Every row of the table has 32 sequences a chip, so that its chips run the same program: what
    # one computes and sends does not depend on their number (tests/plan/test_libtpu.py).
    LAMB: Program("v3-32", "float32", (Part(512, 128, 20, 0.9, "none"), Part(512, 512, 76, 0.1))),
}


def lamb(batch: int, steps: int, chips: int, hours: float) -> Published:
    """A row of LAMB's table: nine tenths of the steps have length 128, one tenth 512."""
    source = "You et al., Large Batch Optimization for Deep Learning (ICLR 2020), table 1"
    name = f"LAMB, batch {batch:,}"
    return Published(name, f"v3-{2 * chips}", LAMB, 3600 * hours, source, steps, whole_job=True)


RESULTS = "github.com/mlcommons/training_results_v"
# Seconds of a step by the time stamps of blocks of steps: 1,117 in 514.2 s; 56 in 13.2 to 14.0 s,
# for the log is read every 14 s; 33 in 1.115 s.
PUBLISHED = (
    Published(V3, "v3-32", V3, 0.4603, RESULTS + "0.7/Google/results/tpu-v3-32-TF2.0/bert"),
    Published(V4, "v4-128", V4, 0.244, RESULTS + "1.0/Google/results/tpu-v4-128-TF/bert"),
    Published(
        V4_LARGE, "v4-4096", V4_LARGE, 0.0338, RESULTS + "1.0/Google/results/tpu-v4-4096-TF/bert"
    ),
    lamb(512, 1_000_000, 16, 82.8),
    lamb(1_024, 500_000, 32, 43.2),
    lamb(2_048, 250_000, 64, 21.4),
    lamb(4_096, 125_000, 128, 693.6 / 60),
    lamb(8_192, 62_500, 256, 390.5 / 60),
    lamb(16_384, 31_250, 512, 200.0 / 60),
    lamb(32_768, 15_600, 1_024, 101.2 / 60),
)
ENCODER_200B = dataclasses.replace(
    sizes.BERT_LARGE,
    hidden_size=12_288,
    intra_bottleneck_size=12_288,
    embedding_size=12_288,
    intermediate_size=98_304,
    num_hidden_layers=66,
    num_attention_heads=128,
)
"""MLPerf 1.1, open division (training_results_v1.1/Google/benchmarks/bert/implementations/
tpu-v4-2048-JAX). Its feed-forward stack has 8e10 numbers, more than 32 bits can index, so that this
project refuses it: its time is only bounded, by arithmetic alone, and calibrates nothing."""
LARGEST = "MLPerf 1.1, 200 billion parameters (v4-2048)"
LARGEST_BATCH, LARGEST_S = 4096, 16.897


def settings(name: str, part: Part, network: str) -> Config:
    """Returns the experiment whose teacher is `network`, trained by such steps."""
    program = PROGRAMS[name]
    pieces = min(MOST_PIECES, topology.parse(program.topology).devices)
    remat = part.remat if network == TRAINED else "feedforward"
    return Config(
        name=name,
        stages=("teacher",),
        precision=program.precision,
        data=Data(max_seq_length=part.length, max_predictions_per_seq=part.predictions),
        tokenizer=Tokenizer(vocab_size=sizes.BERT_LARGE.vocab_size),
        teacher=Teacher(model=NETWORKS[network], batch_size=part.batch, steps=1),
        execution=Execution(mesh=Mesh(fsdp=pieces), fsdp_shard="params_gathered_once", remat=remat),
    )


def compiled(name: str, part: Part, network: str, console: rich.console.Console) -> dict[str, Any]:
    """Plans one kind of step; returns what `calibration.json` holds of it, seconds of one step."""
    hardware = topology.parse(PROGRAMS[name].topology)
    with child_process.compiler(hardware) as compiler:
        made = Planner(hardware, compiler, "some", console).make(settings(name, part, network))
    step = made.stages[0].measured[0]
    if step.times.compiler is None:
        raise SystemExit(f"the compiler crashed on {name}, {network}, length {part.length}")
    return {
        "program": name,
        "network": network,
        "batch": part.batch,
        "length": part.length,
        "share": part.share,
        "flops": step.flops,
        "from_s": step.times.low,
        "compiler_s": step.times.compiler,
        "network_s": step.times.network,
        "to_s": step.times.high,
        "compiled_in_s": round(step.compiled.seconds),
    }


def compile_all(path: Path, console: rich.console.Console) -> None:
    """Writes to `path` what it lacks, after every program, so that a stopped run goes on.

    Figures of another compiler are not mixed with this one's: they must be removed first.
    """
    content = json.loads(path.read_text()) if path.exists() else {"steps": []}
    made_with = content.get("versions", versions())
    if made_with != versions():
        raise SystemExit(f"{path} was made with {made_with}, not {versions()}: remove it first")
    steps = content["steps"]
    done = {(one["program"], one["network"], one["length"]) for one in steps}
    for name, program in PROGRAMS.items():
        for network in NETWORKS:
            for part in program.parts:
                if (name, network, part.length) not in done:
                    console.print(f"{name}, {network}, length {part.length}", markup=False)
                    steps.append(compiled(name, part, network, console))
                    write(path, steps)


def write(path: Path, steps: list[dict[str, Any]]) -> None:
    """Writes what the package calibrates itself with: published jobs, and steps as planned."""
    jobs = [{**job._asdict(), "chip": topology.parse(job.topology).chip.name} for job in PUBLISHED]
    content = {"versions": versions(), "jobs": jobs, "steps": steps}
    path.write_text(json.dumps(content, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Returns what the figures depend on beside this project."""
    return {name: metadata.version(name) for name in ("jax", "libtpu")}


def planned_table(jobs: Sequence[Comparison]) -> str:
    """BERT-Large as it was run: planned range beside what was measured."""
    lines = [
        "| job | planned from - to | measured | measured / from | measured / to |",
        "|---|---|---|---|---|",
    ]
    for one in jobs:
        low, high, took = one.trained.low_s, one.trained.high_s, one.measured_s
        lines.append(
            f"| {one.job} ({one.topology}) | {seconds(low)} - {seconds(high)} | {seconds(took)} "
            f"| {took / low:.2f} | {took / high:.2f} |"
        )
    low, high = bounds_200b()
    lines.append(
        f"| {LARGEST}, arithmetic alone | {seconds(low)} - {seconds(high)} | {seconds(LARGEST_S)} "
        f"| {LARGEST_S / low:.2f} | {LARGEST_S / high:.2f} |"
    )
    return "\n".join(lines)


def factor_table(jobs: Sequence[Comparison]) -> str:
    """The stand-in at the utilisation that was measured, beside its estimate."""
    lines = [
        "| job | of peak | the teacher at that | its estimate | factor | by the others | off by |",
        "|---|---|---|---|---|---|---|",
    ]
    programs = {job.name: job.program for job in PUBLISHED}
    for one in jobs:
        hardware = topology.parse(PROGRAMS[programs[one.job]].topology)
        peak = hardware.chip.peak_flops * hardware.chips
        predicted = calibration.predicted(one, jobs)
        reached = one.trained.flops / one.measured_s / peak
        lines.append(
            f"| {one.job} | {reached:.1%} | {seconds(one.stand_in_s)} "
            f"| {seconds(one.stand_in.estimated_s)} | {one.ratio:.2f} "
            f"| {seconds(predicted)} | {predicted / one.stand_in_s - 1:+.0%} |"
        )
    return "\n".join(lines)


def bounds_200b() -> tuple[float, float]:
    """Seconds of a step of the largest encoder: its arithmetic at the peak, and, computed anew in
    the backward pass, at the usual efficiency; memory and messages are left out."""
    work = 3.0 * LARGEST_BATCH * sizes.forward_flops(ENCODER_200B, 512)
    hardware = topology.parse("v4-2048")
    times = roofline.times(hardware, work, 0.0, [], None, "full")
    return times.low, times.high


def seconds(number: float) -> str:
    """Returns a time as milliseconds, seconds, minutes or hours."""
    for unit, name in ((3600, "h"), (60, "min"), (1, "s")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number * 1e3:.{0 if number >= 0.1 else 1}f} ms"


def main() -> None:
    """Prints both tables and the factors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, help="compile, and write the figures there")
    action.add_argument("--recorded", action="store_true", help="compile nothing")
    arguments = parser.parse_args()
    if arguments.out:
        devices.stay_off_hardware()
        compile_all(arguments.out, rich.console.Console())
    jobs = calibration.comparisons(arguments.out or calibration.FILE)
    print(planned_table(jobs), factor_table(jobs), sep="\n\n", end="\n\n")
    for family in topology.FAMILIES.values():
        print(f"{family.chip}: {calibration.words(family.chip, compiled=True, known=jobs)}")


if __name__ == "__main__":
    main()
