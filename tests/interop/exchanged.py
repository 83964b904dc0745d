"""Networks of a few thousand parameters, in every form and of every kind, with a tokenizer."""

import dataclasses
import zlib
from typing import Any

import numpy as np

from mobilebert_jax.data.wordpiece import WordPiece
from mobilebert_jax.interop import parameter_names, shapes
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig

_WORDS = "the film was good not bad wonder ##ful ##ly un ##believ ##able . , ! ? tokyo 東 京"
_SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["[PAD]", *(f"[unused{i}]" for i in range(3)), *_SPECIAL, *_WORDS.split(" ")]

_NARROW: dict[str, Any] = {
    "vocab_size": len(PIECES),
    "max_position_embeddings": 16,
    "hidden_size": 16,
    "intra_bottleneck_size": 8,
    "embedding_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def narrow(config: ModelConfig, **changes: Any) -> ModelConfig:
    return dataclasses.replace(config, **(_NARROW | changes))


_PLAIN: dict[str, Any] = {
    "intra_bottleneck_size": 16,
    "use_bottleneck": False,
    "query_key": "block_input",
}
CONFIGS = {
    "released": narrow(sizes.MOBILEBERT, num_feedforward_networks=3, trigram_masks_padding=False),
    "masks_padding": narrow(sizes.MOBILEBERT, num_feedforward_networks=1),
    "tiny": narrow(sizes.MOBILEBERT_TINY),
    "layer_norm": narrow(sizes.MOBILEBERT_WITHOUT_OPT, num_feedforward_networks=2),
    "pooler": narrow(sizes.MOBILEBERT, pooler=True, num_feedforward_networks=1, hidden_act="gelu"),
    "relu6": narrow(
        sizes.MOBILEBERT_RELU6, num_feedforward_networks=2, trigram_masks_padding=False
    ),
    "without_trigram": narrow(
        sizes.MOBILEBERT, num_feedforward_networks=2, trigram_input=False, embedding_size=16
    ),
    "without_bottlenecks": narrow(sizes.MOBILEBERT, num_feedforward_networks=2, **_PLAIN),
    "large_vocabulary": narrow(sizes.MOBILEBERT, num_feedforward_networks=1, vocab_size=32000),
    "bert": narrow(sizes.BERT_BASE, intra_bottleneck_size=16, embedding_size=16),
    "squeezebert": narrow(
        sizes.SQUEEZEBERT, intra_bottleneck_size=16, embedding_size=16, k_groups=2, output_groups=2
    ),
}
"""All that Hugging Face can express; BERT and SqueezeBERT have a pooler."""
OTHERS = {
    "teacher": narrow(sizes.IB_BERT_LARGE),
    "paper_form": narrow(sizes.MOBILEBERT_PAPER_FORM, num_feedforward_networks=2),
}

LABELS: dict[Kind, tuple[str, ...]] = {
    "bare": (),
    "masked_lm": (),
    "next_sentence": (),
    "pretraining": (),
    "sequence_classification": ("negative", "neutral", "positive"),
    "token_classification": ("O", "B-PER", "I-PER", "B-東京"),
    "multiple_choice": (),
    "question_answering": ("start", "end"),
}


def is_expressed(name: str, kind: Kind) -> bool:
    """Whether Hugging Face has this kind of a network of `CONFIGS`."""
    return name != "squeezebert" or kind not in ("next_sentence", "pretraining")


def wordpiece(lowercase: bool = True) -> WordPiece:
    """Returns a tokenizer with `PIECES`."""
    return WordPiece("".join(f"{p}\n" for p in PIECES).encode(), lowercase, "a test")


def make(config: ModelConfig, kind: Kind, labels: tuple[str, ...] | None = None) -> Model:
    """Returns a network with weights under which every part of it matters, and a tokenizer."""
    labels = LABELS[kind] if labels is None else labels
    params: dict[str, Any] = {}
    for path, shape in shapes.ours(config, kind, len(labels) or 1).items():
        generator = np.random.default_rng(zlib.crc32(path.encode()))
        *folders, leaf = path.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        spread = 0.5 * shape[-2] ** -0.5 if leaf == "kernel" else 0.3
        node[leaf] = generator.normal(leaf == "scale", spread, shape).astype(np.float32)
    table = parameter_names.table(config, kind)
    assert {tensor.path.split("/")[0] for tensor in table} == set(params)
    return Model(config, kind, params, labels, wordpiece())
