"""Time of one whole training step of the student, beside Hugging Face's PyTorch port.

    .venv-parity/bin/python -m benchmarks.student_step --batch 8 --length 128 --out step.json

All sides do the same work: MobileBERT of the released size, masked-LM loss at the same predicted
positions plus next-sentence loss, gradients of all parameters and AdamW's update; no dropout. Ours
computes in float32, and once more with bfloat16 matmuls (`execution.cpu_matmul_dtype`); the
port in float32 and under bfloat16 autocast. The port as it stands computes vocabulary logits at
every position, so here its heads are applied to the predicted positions only. Ours runs with the
memory settings of launch/run.sh, the port as it is shipped and once more with ours; how they take
turns: `benchmarks.rounds`.
"""

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import rounds
from mobilebert_jax.interop.huggingface import config as huggingface_config
from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network

RATE = 1e-5

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


def our_step(network: Network, batch: Batch) -> rounds.Step:
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


def torch_step(
    config: sizes.ModelConfig,
    batch: Batch,
    attention: str,
    *,
    autocast: bool,
    device: str = "cpu",
    compiled: bool = False,
) -> rounds.Step:
    """Returns a step of the PyTorch port that has already run once.

    It runs eagerly, as it is shipped, or `compiled` by torch.compile; on a GPU it does not wait for
    the device.
    """
    import torch
    import transformers

    content = huggingface_config.make(config, "pretraining", (), 0, pad=0)
    settings = transformers.MobileBertConfig(**content, attn_implementation=attention)
    model = transformers.MobileBertForPreTraining(settings).eval().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, fused=None if device == "cpu" else True)
    ids, segments, mask, positions, words, following = (
        torch.from_numpy(batch[name]).long().to(device)
        for name in (
            "input_ids",
            "segment_ids",
            "input_mask",
            "masked_lm_positions",
            "masked_lm_ids",
            "next_sentence_labels",
        )
    )
    rows = torch.arange(len(ids), device=device)[:, None]
    cross_entropy = torch.nn.functional.cross_entropy

    def loss_of() -> Any:
        output = model.mobilebert(ids, attention_mask=mask, token_type_ids=segments)
        logits_BPV, logits_B2 = model.cls(
            output.last_hidden_state[rows, positions], output.pooler_output
        )
        loss = cross_entropy(logits_BPV.flatten(0, 1), words.flatten())
        return loss + cross_entropy(logits_B2, following)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16) if autocast else contextlib.nullcontext():
            loss = forward()
        loss.backward()
        optimizer.step()

    step()
    return step


def serve(arguments: argparse.Namespace) -> None:
    """Makes the step of `arguments.side`; then, for every line read, runs it and prints seconds."""
    config = dataclasses.replace(sizes.MOBILEBERT, num_hidden_layers=arguments.layers)
    batch = make_batch(config.vocab_size, arguments.batch, arguments.length, arguments.predictions)
    if arguments.side in (rounds.OURS, rounds.ROUNDED):
        network = Network(config, remat=arguments.remat, unroll=arguments.unroll)
        rounded = arguments.side == rounds.ROUNDED
        step = our_step(dataclasses.replace(network, bfloat16_matmuls=rounded), batch)
    else:
        autocast = arguments.side == rounds.AUTOCAST
        step = torch_step(config, batch, arguments.attention, autocast=autocast)
    rounds.serve(step)


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
    if (
        not 1
        <= arguments.predictions
        <= arguments.length
        <= sizes.MOBILEBERT.max_position_embeddings
    ):
        parser.error(
            f"--predictions {arguments.predictions} and --length {arguments.length} must satisfy "
            f"1 <= predictions <= length <= {sizes.MOBILEBERT.max_position_embeddings}"
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
    rounds.compare("benchmarks.student_step", arguments)


if __name__ == "__main__":
    main()
