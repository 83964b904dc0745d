"""Time of a training step of the demo's student, beside Hugging Face's PyTorch port of its size.

    .venv-parity/bin/python -m benchmarks.demo_step --rounds 11 --out demo_step.json

Ours is the real step of the demo's stage `baseline`: cores as devices, AdamW, a check of every
number; in float32, and with bfloat16 matmuls where the CPU has instructions for them. The port
trains the same sizes on a batch of the same shape with AdamW (`benchmarks.student_step`), and how
sides take turns is in `benchmarks.rounds`. Of the other stages, which have no such port,
`benchmarks.compile_time` prints the step.
"""

import argparse
import dataclasses
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import compile_time, rounds
from benchmarks.student_step import make_batch, torch_step
from mobilebert_jax import train
from mobilebert_jax.config.config_dict import from_config_dict
from mobilebert_jax.config.schema import Config
from mobilebert_jax.sharding import cpu_devices
from mobilebert_jax.sharding.global_batch import to_devices
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout

STEPS = 20
"""In a round."""


def demo() -> Config:
    """Returns the demo's configuration."""
    path = Path(__file__).parents[1] / "experiments" / "progressive_kt.py"
    return from_config_dict(runpy.run_path(str(path))["get_config"]("demo"))


def our_step(config: Config) -> rounds.Step:
    """Returns the compiled step of the stage `baseline`, which has already run once."""
    cpu_devices.divide(config.execution.cpu_devices)
    mesh = make_mesh(config.execution.mesh)
    stage = compile_time.trainings(config, mesh)[-1]
    state = state_lib.start(stage.initial(), stage.network, stage.optimizer, Layout(mesh))
    batch, key = to_devices(stage.feed, stage.feed[0], mesh), jax.random.key(0)
    compiled = train.compile_step(stage, stage.phases[0], config.execution, state, batch, key)
    held = [state._replace(step=jax.device_put(jnp.int32(0), state.step.sharding))]

    def step() -> None:
        held[0], _ = compiled(held[0], stage.teacher, batch, key)
        jax.block_until_ready(held[0])

    step()
    return step


def serve(side: str) -> None:
    """Makes the step of `side`; then, for every line read, runs it and prints seconds."""
    config = demo()
    if side in (rounds.OURS, rounds.ROUNDED):
        execution = dataclasses.replace(
            config.execution,
            cpu_matmul_dtype="bfloat16" if side == rounds.ROUNDED else "float32",
        )
        step = our_step(dataclasses.replace(config, execution=execution))
    else:
        model = dataclasses.replace(config.student, vocab_size=config.tokenizer.vocab_size)
        data = config.data
        batch = make_batch(
            model.vocab_size,
            config.distill.batch_size,
            data.max_seq_length,
            data.max_predictions_per_seq,
        )
        step = torch_step(model, batch, "sdpa", autocast=side == rounds.AUTOCAST)
    rounds.serve(step, runs=STEPS)


def main() -> None:
    """Times the steps, prints a table and writes the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if arguments.side:
        serve(arguments.side)
        return
    rounds.compare("benchmarks.demo_step", arguments)


if __name__ == "__main__":
    main()
