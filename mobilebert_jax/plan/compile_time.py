"""How many programs a plan compiles, and about how long that takes: said before it begins.

The times are those of the published job on one core (docs/performance.md, "TPU steps"), whose
student has no loop over its blocks; on two cores they are a third shorter.
"""

import os

from mobilebert_jax.config.schema import Config
from mobilebert_jax.config.stage_settings import settle
from mobilebert_jax.number_format import duration
from mobilebert_jax.plan import job
from mobilebert_jax.plan.suggest import COMPILED_AT_MOST

WHOLE = {"teacher": 73.0, "transfer": 167.0, "distill": 112.0, "control": 112.0, "baseline": 141.0}
"""Seconds of one core for a program with every block; of transfer, layer 23 with the layers below
at a tenth of the rate."""
FIRST_LAYER, FROZEN = 27.0, 65.0
"""Of transfer: its layer 0, and layer 23 with the layers below frozen."""
ALL_LAYERS = 50.0
"""Of transfer that compares all layers at once."""
SEVERAL_CORES, LOOP = 2 / 3, 1 / 2
"""What more than one core, and a loop over the student's blocks, leave of the time."""


def seconds(config: Config, stage: str, layer: int | None) -> float:
    """Returns about how long the step of `stage` (and `layer`) takes to compile here."""
    taken = WHOLE[stage]
    if layer is not None:
        last = taken if config.transfer.lower_layer_lr_scale else FROZEN
        depth = layer / max(1, config.student.num_hidden_layers - 1)
        taken = FIRST_LAYER + depth * (last - FIRST_LAYER)
    elif stage == "transfer":
        taken = ALL_LAYERS
    if stage != "teacher" and config.execution.student_scan_unroll == 1:
        taken *= LOOP
    return taken * (SEVERAL_CORES if (os.cpu_count() or 1) > 1 else 1.0)


def announcement(config: Config, layers: str, suggest: bool) -> str:
    """Returns the line that a plan begins with where it will compile.

    Raises InputError for layers that there are not.
    """
    config = settle(config, config.tokenizer.vocab_size)
    programs = [
        (stage, layer) for stage, chosen in job.programs(config, layers).items() for layer in chosen
    ]
    names = ", ".join(stage if layer is None else f"{stage} {layer}" for stage, layer in programs)
    about = duration(sum(seconds(config, *program) for program in programs))
    line = (
        f"compiling {len(programs)} program(s): {names}; about {about}, an estimate for cores that "
        "do nothing else"
    )
    if suggest:
        line += f"; then up to {COMPILED_AT_MOST} times as many for --suggest"
    return line
