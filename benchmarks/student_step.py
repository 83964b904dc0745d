"""Time of one student training step (forward and backward), beside Hugging Face's PyTorch port.

    python -m benchmarks.student_step --batch 8 --length 128 --out step.json

Both sides do the same work in float32: MobileBERT of the released size, masked-LM loss at the
same predicted positions plus next-sentence loss, and gradients of all parameters; no optimizer, no
dropout. The port as it stands computes vocabulary logits at every position, so here its heads are
applied to the predicted positions only. Rounds of the two alternate, so that a slow spell of the
machine meets both; medians and their ratio are printed. Where torch or transformers is missing,
ours is timed alone and the output says so.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network

STEADY = 1.5
"""Largest slowest/fastest round of a side at which its median is taken for a property of the code.
PyTorch's threads wait for each other many times a step: where another process holds a core, its
steps were seen to take 20 times as long while ours took twice as long."""

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

    compiled = jax.jit(jax.value_and_grad(loss_of)).lower(params, arrays).compile()

    def step() -> None:
        jax.block_until_ready(compiled(params, arrays))

    step()
    return step


def torch_step(config: sizes.ModelConfig, batch: Batch, attention: str) -> Step:
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
        output = model.mobilebert(ids, attention_mask=mask, token_type_ids=segments)
        logits_BPV, logits_B2 = model.cls(
            output.last_hidden_state[rows, positions], output.pooler_output
        )
        loss = cross_entropy(logits_BPV.flatten(0, 1), words.flatten())
        (loss + cross_entropy(logits_B2, following)).backward()

    step()
    return step


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Returns seconds of every round; each round runs every step once, in alternating order."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for index in range(rounds):
        for name in list(steps) if index % 2 == 0 else reversed(list(steps)):
            start = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - start)
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
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="ours")
    parser.add_argument("--remat", choices=tuple(encoder.REMAT_POLICIES), default="none")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="PyTorch's")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if not 1 <= arguments.predictions <= arguments.length <= sizes.MOBILEBERT.max_positions:
        parser.error(
            f"--predictions {arguments.predictions} and --length {arguments.length} must satisfy "
            f"1 <= predictions <= length <= {sizes.MOBILEBERT.max_positions}"
        )
    if min(arguments.batch, arguments.layers, arguments.rounds) < 1:
        parser.error("--batch, --layers and --rounds must be at least 1")
    return arguments


def main() -> None:
    """Times the steps, prints a table and writes the JSON file."""
    arguments = parse()
    config = dataclasses.replace(sizes.MOBILEBERT, layers=arguments.layers)
    batch = make_batch(config.vocab_size, arguments.batch, arguments.length, arguments.predictions)
    report: dict[str, Any] = {"machine": machine()}
    network = Network(config, dtype=arguments.dtype, remat=arguments.remat)
    steps = {"ours": our_step(network, batch)}
    missing = [p for p in ("torch", "transformers") if importlib.util.find_spec(p) is None]
    if not missing:
        steps["pytorch"] = torch_step(config, batch, arguments.attention)
    seconds = measure(steps, arguments.rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report["settings"] = {k: v for k, v in vars(arguments).items() if k != "out"}
    report["seconds"] = seconds
    report["median_seconds"] = medians
    report["not_installed"] = missing
    spreads = {name: max(values) / min(values) for name, values in seconds.items()}
    report["steady"] = max(spreads.values()) <= STEADY
    report["machine"]["load_after"] = os.getloadavg()[0]
    print(json.dumps(report["machine"]))
    for name, values in seconds.items():
        print(
            f"{name:8} median {medians[name]:.3f} s  "
            f"(fastest {min(values):.3f}, slowest {max(values):.3f}, {len(values)} rounds)"
        )
    if missing:
        print(f"{' and '.join(missing)} not installed: ours was timed alone")
    else:
        report["pytorch_over_ours"] = medians["pytorch"] / medians["ours"]
        print(f"pytorch / ours: {report['pytorch_over_ours']:.2f} (above 1: ours is faster)")
    if not report["steady"]:
        print(
            f"NOT STEADY: slowest / fastest round is {max(spreads.values()):.1f}, above {STEADY}; "
            "the machine was shared, so neither medians nor their ratio say anything about the code"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
