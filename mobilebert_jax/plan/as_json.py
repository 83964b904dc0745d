"""A plan for programs: everything the tables show, and what they leave out."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilebert_jax.artifacts import write_json
from mobilebert_jax.plan.collectives import totals
from mobilebert_jax.plan.costs import Costs
from mobilebert_jax.plan.job import Job, Step
from mobilebert_jax.plan.suggest import Tried, overrides


def write(path: Path, job: Job, costs: Costs, tried: Sequence[Tried]) -> None:
    """Writes everything the tables show, and what they leave out, as JSON."""
    content = {**as_dict(job), "costs": _costs_as_dict(costs)}
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
        "likely_s": job.likely_s,
        "high_s": job.high_s,
        "stages": [
            {
                "stage": stage.name,
                "steps": stage.steps,
                "parameters": stage.parameters,
                "checkpoint_bytes": stage.checkpoint_bytes,
                "interpolated": stage.interpolated,
                "low_s": stage.low_s,
                "likely_s": stage.likely_s,
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
        "compile_processor_s": compiled.processor_seconds,
        "times": dataclasses.asdict(step.times),
        "messages": {
            kind: {"count": count, "bytes": size}
            for kind, (count, size) in totals(compiled.collectives).items()
        },
    }


def _costs_as_dict(costs: Costs) -> dict[str, Any]:
    """Seconds, chip-hours and money; null where a job would never end."""
    return {
        "assumptions": dataclasses.asdict(costs.assumptions),
        "chip_hours": _finite(costs.chip_hours(costs.total_s)),
        "money": _finite(costs.money(costs.total_s)) if costs.assumptions.price else None,
        "goodput": costs.goodput,
        "stages": [
            {
                "stage": stage.name,
                "chip_hours": _finite(costs.chip_hours(stage.total_s)),
                "checkpoint_bytes": stage.checkpoint_bytes,
                "saves": stage.saves,
                "save_s": stage.save_s,
                "save_share": stage.save_share,
                "failures": _finite(stage.failures),
                "lost_s": {cause: _finite(seconds) for cause, seconds in stage.lost.items()},
                "goodput": stage.goodput,
            }
            for stage in costs.stages
        ],
        "examples_per_s_of_one_host": [
            {
                "step": one.step.label,
                "likely": one.likely,
                "most": one.most,
                "given": one.given,
            }
            for one in costs.feeding
        ],
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
