"""Time of one whole training step of the student, beside Hugging Face's PyTorch port.

    .venv-parity/bin/python -m benchmarks.student_step --batch 8 --length 128 --out step.json

All sides do the same work: MobileBERT of the released size, masked-LM loss at the same predicted
positions plus next-sentence loss, gradients of all parameters and AdamW's update; no dropout. Ours
computes in float32, and once more with products rounded to bfloat16 (`execution.cpu_products`); the
port in float32 and under bfloat16 autocast. The port as it stands computes vocabulary logits at
every position, so here its heads are applied to the predicted positions only. Each side is a
process of its own: ours with the memory settings of launch/run.sh, the port as it is shipped and
once more with ours. Their steps alternate, so that a slow spell of the machine meets all; a round
is a step that is not counted, because another side has just had the caches, and one that is. Where
torch or transformers is missing, ours is timed alone and the output says so.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network
from mobilebert_jax.partition.processor import multiplies_bfloat16

STEADY = 1.5
"""Largest slowest/fastest round of a side at which its median is taken for a property of the code.
PyTorch's threads wait for each other many times a step: where another process holds a core, its
steps were seen to take 20 times as long while ours took twice as long."""

RATE = 1e-5
OURS, ROUNDED = "ours", "ours, products in bfloat16"
SHIPPED, SAME, AUTOCAST = "pytorch", "pytorch, our memory settings", "pytorch, bfloat16 autocast"
MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1099511627776",
}
"""What launch/run.sh sets on a CPU."""

Step = Callable[[], None]
Batch = dict[str, np.ndarray]


def make_batch(vocab_size: int, batch: int, length: int, predictions: int) -> Batch:
    """Returns full-length random sequences, [B, T], and P predicted positions in each."""
    generator = np.random.default_rng(0)
    shape = (batch, length)
    positions_BP = np.stack([generator.permutation(length)[:predictions] for _ in range(batch)])
    return {
        "input_ids": generator.integers(1, vocab_size, shape).astype(np.int32),
        "segment_ids": np.broadcast_to(np.arange(length) >= length // 2, shape).astype(np.int32),
        "input_mask": np.ones(shape, np.int32),
        "masked_lm_positions": positions_BP.astype(np.int32),
        "masked_lm_ids": generator.integers(1, vocab_size, positions_BP.shape).astype(np.int32),
        "next_sentence_labels": generator.integers(0, 2, batch).astype(np.int32),
    }


def our_step(network: Network, batch: Batch) -> Step:
    """Returns a compiled step of ours that has already run once."""
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}
    make = jax.jit(lambda key: nn.unbox(encoder.init(network, key)))
    params = make(jax.random.key(0))

    def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
        log_probabilities = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1))

    def loss_of(params: encoder.Params, batch: encoder.Batch) -> jax.Array:
        hidden_BTD = encoder.encode(network, params, batch).hidden_BTD
        predicted = encoder.predict(network, params, hidden_BTD, batch)
        masked_lm = cross_entropy(predicted.masked_lm_BPV, batch["masked_lm_ids"])
        return masked_lm + cross_entropy(predicted.next_sentence_B2, batch["next_sentence_labels"])

    optimizer = optax.adamw(RATE)

    def update(params: encoder.Params, moments: Any, batch: encoder.Batch) -> tuple[Any, Any]:
        gradients = jax.grad(loss_of)(params, batch)
        changes, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, changes), moments

    state = [params, jax.jit(optimizer.init)(params)]
    compiled = jax.jit(update, donate_argnums=(0, 1)).lower(*state, arrays).compile()

    def step() -> None:
        state[:] = compiled(*state, arrays)
        jax.block_until_ready(state)

    step()
    return step


def torch_step(config: sizes.ModelConfig, batch: Batch, attention: str, *, autocast: bool) -> Step:
    """Returns a step of the PyTorch port, eager as it is shipped, that has already run once."""
    import torch
    import transformers

    settings = transformers.MobileBertConfig(
        vocab_size=config.vocab_size,
        num_hidden_layers=config.layers,
        classifier_activation=config.pooler,
        attn_implementation=attention,
    )
    model = transformers.MobileBertForPreTraining(settings).eval()
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    ids, segments, mask, positions, words, following = (
        torch.from_numpy(batch[name]).long()
        for name in (
            "input_ids",
            "segment_ids",
            "input_mask",
            "masked_lm_positions",
            "masked_lm_ids",
            "next_sentence_labels",
        )
    )
    rows = torch.arange(len(ids))[:, None]
    cross_entropy = torch.nn.functional.cross_entropy

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            output = model.mobilebert(ids, attention_mask=mask, token_type_ids=segments)
            logits_BPV, logits_B2 = model.cls(
                output.last_hidden_state[rows, positions], output.pooler_output
            )
            loss = cross_entropy(logits_BPV.flatten(0, 1), words.flatten())
            loss = loss + cross_entropy(logits_B2, following)
        loss.backward()
        optimizer.step()

    step()
    return step


def serve(arguments: argparse.Namespace) -> None:
    """Makes the step of `arguments.side`; then, for every line read, runs it and prints seconds."""
    config = dataclasses.replace(sizes.MOBILEBERT, layers=arguments.layers)
    batch = make_batch(config.vocab_size, arguments.batch, arguments.length, arguments.predictions)
    if arguments.side in (OURS, ROUNDED):
        network = Network(config, remat=arguments.remat, unroll=arguments.unroll)
        rounded = arguments.side == ROUNDED
        step = our_step(dataclasses.replace(network, rounded_products=rounded), batch)
    else:
        autocast = arguments.side == AUTOCAST
        step = torch_step(config, batch, arguments.attention, autocast=autocast)
    print("ready", flush=True)
    for _ in sys.stdin:
        step()
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


def start(side: str) -> subprocess.Popen[str]:
    """Starts the process of a side and waits until it is ready."""
    shipped = {name: value for name, value in os.environ.items() if name not in MEMORY}
    program = ["-m", "benchmarks.student_step", *sys.argv[1:]]
    process = subprocess.Popen(
        [sys.executable, *program, "--side", side],
        env=shipped if side in (SHIPPED, AUTOCAST) else shipped | MEMORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        if not line:
            raise SystemExit(f"the process of '{side}' ended; what it said stands above")
    return process


def measure(sides: list[str], rounds: int) -> dict[str, list[float]]:
    """Returns seconds of every round; each round runs every side once, in alternating order."""
    processes = {side: start(side) for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for index in range(rounds):
        for side in sides if index % 2 == 0 else reversed(sides):
            asked, said = processes[side].stdin, processes[side].stdout
            assert asked is not None and said is not None
            asked.write("step\n")
            asked.flush()
            seconds[side].append(float(said.readline()))
    for process in processes.values():
        process.communicate()
    return seconds


def machine() -> dict[str, Any]:
    """Returns what a reader needs to repeat the measurement."""
    versions = {}
    for package in ("jax", "jaxlib", "flax", "torch", "transformers"):
        if importlib.util.find_spec(package):
            versions[package] = importlib.metadata.version(package)
    return {
        "device": str(jax.devices()[0].device_kind),
        "platform": jax.default_backend(),
        "machine": f"{platform.machine()} {platform.system()}",
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--batch", type=int, default=8, help="sequences in a step")
    parser.add_argument("--length", type=int, default=128, help="tokens in a sequence")
    parser.add_argument("--predictions", type=int, default=20, help="predicted positions each")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--unroll", type=int, default=1, help="blocks in a round of our loop")
    parser.add_argument("--remat", choices=tuple(encoder.REMAT_POLICIES), default="none")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="PyTorch's")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not 1 <= arguments.predictions <= arguments.length <= sizes.MOBILEBERT.max_positions:
        parser.error(
            f"--predictions {arguments.predictions} and --length {arguments.length} must satisfy "
            f"1 <= predictions <= length <= {sizes.MOBILEBERT.max_positions}"
        )
    if min(arguments.batch, arguments.layers, arguments.rounds, arguments.unroll) < 1:
        parser.error("--batch, --layers, --rounds and --unroll must be at least 1")
    return arguments


def main() -> None:
    """Times the steps, prints a table and writes the JSON file."""
    arguments = parse()
    if arguments.side:
        serve(arguments)
        return
    report: dict[str, Any] = {"machine": machine()}
    missing = [p for p in ("torch", "transformers") if importlib.util.find_spec(p) is None]
    sides = [OURS, *([ROUNDED] if multiplies_bfloat16() else [])]
    sides += [] if missing else [SHIPPED, SAME, AUTOCAST]
    seconds = measure(sides, arguments.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report["settings"] = {k: v for k, v in vars(arguments).items() if k not in ("out", "side")}
    report["seconds"] = seconds
    report["median_seconds"] = medians
    report["not_installed"] = missing
    spreads = {name: max(values) / min(values) for name, values in seconds.items()}
    report["steady"] = max(spreads.values()) <= STEADY
    report["machine"]["load_after"] = os.getloadavg()[0]
    print(json.dumps(report["machine"]))
    for name, values in seconds.items():
        print(
            f"{name:30} median {medians[name]:.3f} s  "
            f"(fastest {min(values):.3f}, slowest {max(values):.3f}, {len(values)} rounds)"
        )
    if missing:
        print(f"{' and '.join(missing)} not installed: ours was timed alone")
    else:
        pairs = [(SHIPPED, OURS), *[(port, ROUNDED) for port in (SHIPPED, AUTOCAST)]]
        report["ratios"] = {
            f"{port} / {side}": medians[port] / medians[side]
            for port, side in pairs
            if side in medians
        }
        for name, ratio in report["ratios"].items():
            print(f"{name}: {ratio:.2f} (above 1: ours is faster)")
    if not report["steady"]:
        print(
            f"NOT STEADY: slowest / fastest round is {max(spreads.values()):.1f}, above {STEADY}; "
            "the machine was shared, so neither medians nor their ratio say anything about the code"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
