"""How long does each stage's train step take to compile, and to run?

    .venv/bin/python -m benchmarks.compile_time --experiment experiments/progressive_kt.py:demo

Traces, lowers and compiles the real step of every phase on random tokens of its shapes, on as
many devices as the experiment divides a CPU into, then times a few steps. Prints a table and
writes JSON. Steps are those of a run where the memory settings of launch/run.sh are set too.
"""

import argparse
import dataclasses
import json
import platform
import runpy
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax import train
from mobilebert_jax.config.config_dict import from_config_dict
from mobilebert_jax.config.schema import Config
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.pipeline import curriculum
from mobilebert_jax.sharding import cpu_devices
from mobilebert_jax.sharding.global_batch import to_devices
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout


class RandomDocuments:
    """Documents of random words; the content does not matter to a compiler."""

    weight = 1.0

    def __init__(self, vocabulary_size: int) -> None:
        self.token_counts = np.full(64, 2048, np.int64)
        self.document_numbers = np.arange(len(self.token_counts))
        self._size = vocabulary_size

    def __len__(self) -> int:
        return len(self.token_counts)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.random.default_rng(index).integers(5, self._size, 2048, dtype=np.int32)
        return tokens, np.full(128, 16, np.int32)


def vocabulary(size: int) -> Vocabulary:
    """Returns a vocabulary of `size` pieces, each a word of its own."""
    return Vocabulary(0, 1, 2, 3, np.arange(5, size, dtype=np.int32), np.ones(size, bool))


def trainings(config: Config, mesh: jax.sharding.Mesh) -> list[train.Training]:
    """Returns every training stage of the experiment, on random documents."""
    size = config.teacher.model.vocab_size or config.tokenizer.vocab_size
    documents = [RandomDocuments(size)]
    setting = curriculum.Setting(config, Layout(mesh), documents, vocabulary(size))
    teacher = setting.initial(config.teacher.model, curriculum.TEACHER_STREAM)
    stages = [curriculum.teacher_training(setting)]
    if config.transfer.strategy in ("progressive", "joint"):
        stages.append(curriculum.transfer_training(setting, teacher))
    stages.append(curriculum.distill_training(setting, teacher, None))
    return [*stages, curriculum.baseline_training(setting)]


def measure(
    stage: train.Training, phase: train.Phase, config: Config, mesh: jax.sharding.Mesh, steps: int
) -> dict[str, Any]:
    """Returns seconds of compilation and the median milliseconds of a step."""
    state = state_lib.start(stage.initial(), stage.network, stage.optimizer, Layout(mesh))
    state = state._replace(step=jax.device_put(jnp.int32(phase.start), state.step.sharding))
    batch, key = to_devices(stage.feed, stage.feed[0], mesh), jax.random.key(0)
    began = time.perf_counter()
    step_fn = train.compile_step(stage, phase, config.execution, state, batch, key)
    compiled = time.perf_counter() - began
    taken = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        state, _ = step_fn(state, stage.teacher, batch, key)
        jax.block_until_ready(state)
        taken.append(time.perf_counter() - began)
    return {
        "stage": stage.name,
        "phase": phase.label,
        "compile_s": compiled,
        "step_ms": statistics.median(taken[1:]) * 1e3,
        "tokens_per_s": stage.feed.tokens(0, 1) / statistics.median(taken[1:]),
    }


def main() -> None:
    """Measures every phase of an experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="experiments/progressive_kt.py:demo")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--cpu_matmul_dtype", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--out", type=Path, default=Path("compile_time.json"))
    arguments = parser.parse_args()
    path, _, scale = arguments.experiment.partition(":")
    config = from_config_dict(runpy.run_path(path)["get_config"](scale or "demo"))
    if dtype := arguments.cpu_matmul_dtype:
        execution = dataclasses.replace(config.execution, cpu_matmul_dtype=dtype)
        config = dataclasses.replace(config, execution=execution)
    cpu_devices.divide(config.execution.cpu_devices)
    mesh = make_mesh(config.execution.mesh)
    rows = []
    print(f"{platform.processor() or platform.machine()}, jax {jax.__version__}")
    print(f"{'stage':10} {'phase':12} {'compile s':>10} {'step ms':>10} {'tokens/s':>10}")
    for stage in trainings(config, mesh):
        for phase in stage.phases:
            row = measure(stage, phase, config, mesh, arguments.steps)
            rows.append(row)
            print(
                f"{row['stage']:10} {row['phase']:12} {row['compile_s']:10.1f} "
                f"{row['step_ms']:10.1f} {row['tokens_per_s']:10.0f}",
                flush=True,
            )
    report = {"jax": jax.__version__, "platform": platform.platform(), "rows": rows}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
