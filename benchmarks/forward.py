"""Time of one forward pass of the student or the teacher, beside the same network in PyTorch.

    .venv-parity/bin/python -m benchmarks.forward --network mobilebert --batch 1
    .venv-parity/bin/python -m benchmarks.forward --network ib_bert_large --batch 2 --runs 2

Full-length input of the published size, random weights, blocks without heads. The PyTorch side is
Hugging Face's port; for the teacher, which that port does not know, it is the port's parts put
together as IB-BERT_LARGE (`tests.parity.torch_reference`, whose outputs the tests compare with
ours). How the sides take turns: `benchmarks.rounds`.
"""

import argparse
import contextlib
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rounds
from mobilebert_jax.model import encoder, sizes
from mobilebert_jax.model.layers import Network


def our_forward(network: Network, ids_BT: np.ndarray) -> rounds.Step:
    """Returns a compiled forward pass that has already run once."""
    ids = jnp.asarray(ids_BT)
    batch = {"input_ids": ids, "segment_ids": ids * 0, "input_mask": jnp.ones_like(ids)}
    params = jax.jit(lambda key: nn.unbox(encoder.init(network, key)))(jax.random.key(0))
    compiled = (
        jax.jit(lambda params, batch: encoder.encode(network, params, batch).hidden_BTD)
        .lower(params, batch)
        .compile()
    )

    def step() -> None:
        jax.block_until_ready(compiled(params, batch))

    step()
    return step


def torch_forward(config: sizes.ModelConfig, ids_BT: np.ndarray, *, autocast: bool) -> rounds.Step:
    """Returns a forward pass of the PyTorch network that has already run once."""
    import torch

    from tests.parity import torch_reference

    model = torch_reference.build(config, attention="sdpa").base_model
    ids = torch.from_numpy(ids_BT).long()
    mask = torch.ones_like(ids)

    def step() -> None:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext(),
        ):
            model(ids, attention_mask=mask)

    step()
    return step


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--network", choices=tuple(sizes.PUBLISHED), default="mobilebert")
    parser.add_argument("--batch", type=int, default=1, help="sequences in a pass")
    parser.add_argument("--length", type=int, default=128, help="tokens in a sequence")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=10, help="passes that a round is the mean of")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    longest = sizes.PUBLISHED[arguments.network].max_position_embeddings
    if not 1 <= arguments.length <= longest:
        parser.error(f"--length must lie between 1 and {longest}")
    if min(arguments.batch, arguments.rounds, arguments.runs) < 1:
        parser.error("--batch, --rounds and --runs must be at least 1")
    return arguments


def main() -> None:
    """Compares the sides, or is one."""
    arguments = parse()
    if not arguments.side:
        rounds.compare("benchmarks.forward", arguments)
        return
    config = sizes.PUBLISHED[arguments.network]
    shape = (arguments.batch, arguments.length)
    ids_BT = np.random.default_rng(0).integers(1, config.vocab_size, shape).astype(np.int32)
    if arguments.side in (rounds.OURS, rounds.ROUNDED):
        rounded = arguments.side == rounds.ROUNDED
        step = our_forward(Network(config, bfloat16_matmuls=rounded), ids_BT)
    else:
        autocast = arguments.side == rounds.AUTOCAST
        step = torch_forward(config, ids_BT, autocast=autocast)
    rounds.serve(step, runs=arguments.runs)


if __name__ == "__main__":
    main()
