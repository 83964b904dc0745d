"""How long do the published job's train steps take on a TPU, by the compiler's own estimate?

    python -m benchmarks.tpu_steps --on v5e-256 --out steps.json

Compiles the real steps of `experiments/progressive_kt.py:paper` at batch 2048 and length 512 for
hardware that need not be here (it takes the package libtpu), and beside them the authors'
formulation of transfer: all layers of both networks in every step, all losses computed, and a gate
that lets one layer's through. Both are made of the same blocks, so that the ratio is that of the
formulations, and layers are compared one by one, which is its fastest form here. The estimate is
the sum over all instructions, nothing overlapped, without waiting for other chips
(`plan/cycles.py`).

Rows: `frozen` and `tenth`, our transfer with what lies below the layer frozen or at a tenth of the
rate, for each of `--layers`; `gated`, the authors' formulation; `joint` and `auxiliary`, the other
strategies; `distill`, `teacher`, and `student`, which learns from words alone. Each is compiled
with every `--unroll`, `--teacher_scan_unroll`, `--remat` and `--cuts`.
"""

import argparse
import dataclasses
import itertools
import json
import platform
import runpy
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import Config
from mobilebert_jax.config.stage_settings import settle
from mobilebert_jax.model import teacher_student
from mobilebert_jax.model.block import Captured
from mobilebert_jax.objective import transfer
from mobilebert_jax.objective.loss_terms import Batch, Measured, Params
from mobilebert_jax.optimizer.trainable import EVERYTHING
from mobilebert_jax.plan import devices, programs, topology
from mobilebert_jax.plan.compiled import Compiled, compile_program
from mobilebert_jax.plan.programs import Program
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training.state import Layout

BATCH = 2048
VOCABULARY = 30522


class Row(NamedTuple):
    """One line of the table: a train step, and settings that differ from the published job's."""

    stage: str
    layer: int | None = None
    lower_layer_lr_scale: float = 0.1
    strategy: Any = "progressive"

    @property
    def label(self) -> str:
        if self.strategy != "progressive":
            return str(self.strategy)
        if self.layer is None:
            return self.stage
        return f"{self.stage} {self.layer} {'0.1' if self.lower_layer_lr_scale else 'frozen'}"


class Choice(NamedTuple):
    """How a step is compiled, which changes none of its numbers."""

    unroll: int
    """Blocks in one round of the loops of a student in training."""
    teacher_scan_unroll: int
    """The same of a teacher that is only looked at."""
    remat: Any
    """Of all stages; empty takes the published job's own, which differ."""
    cuts: int
    """Pieces that the moments are cut into, over as many chips."""

    def __str__(self) -> str:
        unroll = f"{self.unroll}/{self.teacher_scan_unroll}"
        return f"unroll={unroll:<6} remat={self.remat or 'own':<5} moments/{self.cuts:<4}"


def published(choice: Choice, row: Row) -> Config:
    """Returns the published job with batch 2048 in every stage, compiled as chosen."""
    config: Config = runpy.run_path("experiments/progressive_kt.py")["paper"]()
    kept = {"remat": choice.remat, "teacher_remat": "same"} if choice.remat else {}
    return settle(
        dataclasses.replace(
            config,
            teacher=dataclasses.replace(config.teacher, batch_size=BATCH),
            transfer=dataclasses.replace(
                config.transfer,
                lower_layer_lr_scale=row.lower_layer_lr_scale,
                strategy=row.strategy,
            ),
            execution=dataclasses.replace(
                config.execution,
                **kept,
                student_scan_unroll=choice.unroll,
                teacher_scan_unroll=choice.teacher_scan_unroll,
                mesh=Mesh(fsdp=choice.cuts),
                fsdp_shard="params_gathered_once",
            ),
        ),
        VOCABULARY,
    )


def gated(config: Config, layout: Layout) -> Program:
    """Returns the step of the authors' formulation: all layers, all losses, one gate for each."""
    ours = programs.program(config, layout, "transfer", 0)
    student, layers = ours.training.network, config.student.num_hidden_layers
    teacher = dataclasses.replace(
        student, config=config.teacher.model, unroll=config.execution.teacher_scan_unroll
    )
    factors = {name: getattr(config.transfer, f"{name}_weight") for name in transfer.LOSSES}

    def measure(params: Params, teacher_params: Params, batch: Batch, key: jax.Array) -> Measured:
        def compare(taught: Captured, wanted: Captured) -> dict[str, jax.Array]:
            return transfer.layer_totals(taught, wanted, batch["input_mask"])

        both = teacher_student.run(student, teacher, params, teacher_params, batch, compare)
        # Which layer's turn it is must not be known to the compiler: the first word tells.
        gates_N = jnp.arange(layers) == batch["input_ids"][0, 0] % layers
        totals = {name: total_N * gates_N for name, total_N in both.found.items()}
        return transfer.as_measured(totals, batch["input_mask"], factors)

    phase = ours.training.phases[0]._replace(objective=measure, part=EVERYTHING)
    return Program(ours.training, phase)


def compile_row(row: Row, config: Config, layout: Layout) -> Compiled:
    """Compiles the step of `row`; says so where it needs more memory than there is."""
    if row.stage == "gated":
        return compile_program(gated(config, layout), config, layout)
    stage = {"student": "baseline"}.get(row.stage, row.stage)
    return compile_program(programs.program(config, layout, stage, row.layer), config, layout)


def measure(row: Row, choice: Choice, hardware: topology.Topology) -> dict[str, Any]:
    """Returns the metrics of one row under one choice."""
    config = published(choice, row)
    mesh = make_mesh(config.execution.mesh, devices.compile_only(hardware))
    found = compile_row(row, config, Layout(mesh, config.execution.fsdp_shard))
    clock = hardware.chip.clock
    milliseconds = found.cycles / clock * 1e3 if found.fits and found.cycles and clock else None
    return {
        "row": row.label,
        **choice._asdict(),
        "milliseconds": milliseconds,
        "peak_gigabytes": found.memory.peak / 1e9,
        "compile_seconds": found.seconds,
    }


def rows(names: list[str], layers: list[int]) -> list[Row]:
    """Returns the rows of the table; `frozen` and `tenth` are transfer's, one for each layer."""
    found = []
    for name in names:
        if name in ("frozen", "tenth"):
            rate = 0.0 if name == "frozen" else 0.1
            found += [Row("transfer", layer, rate) for layer in layers]
        elif name in ("joint", "auxiliary"):
            stage = "transfer" if name == "joint" else "distill"
            found.append(Row(stage, strategy=name))
        else:
            found.append(Row(name))
    return found


def main() -> None:
    """Prints every figure when it is there, and writes them all as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--on", default="v5e-256", help="a name that --plan takes")
    parser.add_argument(
        "--rows", default="frozen,tenth,gated,joint,auxiliary,distill,teacher,student"
    )
    parser.add_argument("--layers", default="0,11,23", help="of transfer")
    parser.add_argument("--unroll", default="24", help="blocks in a round of a student's loop")
    parser.add_argument(
        "--teacher_scan_unroll", default="4", help="the same of a teacher looked at"
    )
    parser.add_argument("--remat", default="", help="of all stages, instead of their own")
    parser.add_argument("--cuts", default="32", help="pieces of the moments")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    devices.stay_off_hardware()
    hardware = topology.parse(arguments.on)
    wanted = rows(arguments.rows.split(","), [int(n) for n in arguments.layers.split(",")])
    choices = [
        Choice(int(unroll), int(teacher_scan_unroll), remat, int(cuts))
        for unroll in arguments.unroll.split(",")
        for teacher_scan_unroll in arguments.teacher_scan_unroll.split(",")
        for remat in arguments.remat.split(",")
        for cuts in arguments.cuts.split(",")
    ]
    versions = {name: metadata.version(name) for name in ("jax", "libtpu")}
    print(f"{hardware.name}, batch {BATCH}, length 512, {versions}", flush=True)
    metrics = []
    for row, choice in itertools.product(wanted, choices):
        one = measure(row, choice, hardware)
        metrics.append(one)
        took = "does not fit" if one["milliseconds"] is None else f"{one['milliseconds']:.1f} ms"
        print(
            f"{row.label:<20} {choice} {took:>12}"
            f"  {one['peak_gigabytes']:.2f} GB a chip, compiled in {one['compile_seconds']:.0f} s",
            flush=True,
        )
    if arguments.out:
        made_on = {"hardware": hardware.name, "python": platform.python_version(), **versions}
        arguments.out.write_text(json.dumps({**made_on, "steps": metrics}, indent=1) + "\n")


if __name__ == "__main__":
    main()
