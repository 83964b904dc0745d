"""An experiment whose steps compile quickly."""

import dataclasses
from typing import Any

from mobilebert_jax.config.schema import Config, Data, Distill, Teacher, Tokenizer, Transfer
from mobilebert_jax.model import sizes

NARROW: dict[str, Any] = {
    "vocab_size": 0,
    "max_position_embeddings": 16,
    "hidden_size": 16,
    "embedding_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_feedforward_networks": 1,
}
SMALL = Config(
    stages=("teacher", "transfer", "distill"),
    data=Data(max_seq_length=16, max_predictions_per_seq=3),
    tokenizer=Tokenizer(vocab_size=64),
    teacher=Teacher(
        model=dataclasses.replace(
            sizes.IB_BERT_LARGE, intra_bottleneck_size=24, intermediate_size=20, **NARROW
        ),
        batch_size=16,
        steps=100,
    ),
    student=dataclasses.replace(
        sizes.MOBILEBERT, intra_bottleneck_size=8, intermediate_size=12, **NARROW
    ),
    transfer=Transfer(batch_size=16, steps=30),
    distill=Distill(batch_size=16, steps=50),
)
