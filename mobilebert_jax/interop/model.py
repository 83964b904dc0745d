"""A network as it is exchanged: settings, head, parameters, and the tokenizer beside it."""

from typing import Any, Literal, NamedTuple

from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.model.sizes import ModelConfig

Kind = Literal[
    "bare",
    "masked_lm",
    "next_sentence",
    "pretraining",
    "sequence_classification",
    "token_classification",
    "multiple_choice",
    "question_answering",
]
"""What stands above the blocks. "pretraining" is masked LM and next sentence together."""

TASK_KINDS = (
    "sequence_classification",
    "token_classification",
    "multiple_choice",
    "question_answering",
)
"""Kinds whose head is one dense layer, `task/dense` of our parameters."""


def numbered_labels(outputs: int) -> tuple[str, ...]:
    """Returns the names that `transformers` has for outputs without."""
    return tuple(f"LABEL_{i}" for i in range(outputs))


class Model(NamedTuple):
    """One network with everything that is needed to use it."""

    config: ModelConfig
    """With the vocabulary's true size."""
    kind: Kind
    params: dict[str, Any]
    """Unboxed numpy float32: `embeddings`, `blocks`, `pooler` where there is one, and of the heads
    those of its kind: `masked_lm`, `next_sentence`, `task`."""
    labels: tuple[str, ...]
    """Names of the classes or tags in the order of the outputs; ("start", "end") for questions;
    empty where outputs have no names, a single number included."""
    tokenizer: Tokenizer | None
    """None where the source holds none."""
