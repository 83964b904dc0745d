"""One vector for a text: the mean of its tokens' features, or those of the first position."""

import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax

from mobilebert_jax.finetune.features import of_sentences
from mobilebert_jax.inference.batching import Scoring
from mobilebert_jax.inference.requests import Item
from mobilebert_jax.interop import sentence_vector
from mobilebert_jax.interop.model import Kind
from mobilebert_jax.interop.sentence_vector import Pooling
from mobilebert_jax.model import encoder
from mobilebert_jax.objective.loss_terms import Batch, Params

KINDS: tuple[Kind, ...] = typing.get_args(Kind)


def answerer(
    scoring: Scoring, *, pooling: Pooling
) -> Callable[[Sequence[Item]], list[dict[str, Any]]]:
    """Returns what answers items with `text` and, for pairs, `second_text`."""
    network = scoring.network

    def embed(params: Params, batch: Batch) -> jax.Array:
        hidden_BTD = encoder.encode(network, params, batch).hidden_BTD
        return sentence_vector.of(network, params, hidden_BTD, batch["input_mask"], pooling)

    apply = scoring.apply(embed)

    def answer(items: Sequence[Item]) -> list[dict[str, Any]]:
        examples = [scoring.example(item) for item in items]
        rows, _ = of_sentences(examples, scoring.tokenizer, scoring.length, number=True)
        found: list[dict[str, Any]] = [{}] * len(items)
        for chosen, vectors_BD in apply(scoring.params, rows):
            for row, vector_D in zip(chosen, vectors_BD, strict=False):
                found[row] = {"embedding": vector_D.tolist()}
        return found

    return answer
