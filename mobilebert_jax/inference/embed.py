"""One vector for a text: the mean of its tokens' features, or those of the first position."""

import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.finetune.features import of_sentences
from mobilebert_jax.inference.batching import Scoring
from mobilebert_jax.inference.requests import Item
from mobilebert_jax.interop.model import Kind
from mobilebert_jax.model import encoder
from mobilebert_jax.objective.loss_terms import Batch, Params

KINDS: tuple[Kind, ...] = typing.get_args(Kind)
POOLS = ("mean", "first", "cls")
_SMALLEST = 1e-12  # length that is divided by at least, as in PyTorch's `normalize`


def answerer(
    scoring: Scoring, *, pool: str, normalize: bool = False
) -> Callable[[Sequence[Item]], list[dict[str, Any]]]:
    """Returns what answers items with `text` and, for pairs, `second_text`.

    `pool` is "mean", over all tokens that are not padding, or "first", through the pooler where the
    network has one, or "cls", the first position as it is. `normalize` gives vectors length 1.
    """
    network = scoring.network

    def embed(params: Params, batch: Batch) -> jax.Array:
        hidden_BTD = encoder.encode(network, params, batch).hidden_BTD
        if pool == "cls":
            return hidden_BTD[:, 0].astype(jnp.float32)
        if pool == "first":
            return encoder.pool(network, params, hidden_BTD)
        mask_BT1 = batch["input_mask"][..., None].astype(jnp.float32)
        total_BD = jnp.sum(hidden_BTD.astype(jnp.float32) * mask_BT1, axis=1)
        return total_BD / jnp.maximum(jnp.sum(mask_BT1, axis=1), 1.0)

    apply = scoring.apply(embed)

    def answer(items: Sequence[Item]) -> list[dict[str, Any]]:
        examples = [scoring.example(item) for item in items]
        rows, _ = of_sentences(examples, scoring.tokenizer, scoring.length, number=True)
        found: list[dict[str, Any]] = [{}] * len(items)
        for chosen, vectors_BD in apply(scoring.params, rows):
            for row, vector_D in zip(chosen, vectors_BD, strict=False):
                if normalize:
                    vector_D = vector_D / max(float(np.linalg.norm(vector_D)), _SMALLEST)
                found[row] = {"embedding": vector_D.tolist()}
        return found

    return answer
