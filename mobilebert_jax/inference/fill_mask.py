"""The likeliest pieces for every [MASK] of a sentence.

Shapes: B batch, T positions, P masks of the sentence with the most, K pieces, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.inference.batching import Scoring
from mobilebert_jax.inference.requests import Item
from mobilebert_jax.model import encoder
from mobilebert_jax.model.heads import MaskedLM, gather_positions
from mobilebert_jax.objective.loss_terms import Batch, Params

KINDS = ("masked_lm", "pretraining")


def answerer(scoring: Scoring, *, top: int) -> Callable[[Sequence[Item]], list[dict[str, Any]]]:
    """Returns what answers items with a `text` that has at least one mask."""
    network, tokenizer = scoring.network, scoring.tokenizer
    top = min(top, tokenizer.size)

    def likeliest(params: Params, batch: Batch) -> Any:
        hidden_BTD = encoder.encode(network, params, batch).hidden_BTD
        features = gather_positions(hidden_BTD, batch["positions"])
        logits_BPV: Any = MaskedLM(network.config).apply(
            {"params": params["masked_lm"]}, features, params["embeddings"]["word"]
        )
        # A table may have more rows than the vocabulary has pieces.
        probabilities_BPV = jax.nn.softmax(logits_BPV[..., : tokenizer.size])
        return jax.lax.top_k(probabilities_BPV, top)

    apply = scoring.apply(likeliest)

    def fill(items: Sequence[Item]) -> list[dict[str, Any]]:
        rows, masks = _rows(items, scoring)
        found: list[dict[str, Any]] = [{}] * len(items)
        for chosen, (probabilities_BPK, ids_BPK) in apply(scoring.params, rows):
            for row, scores_PK, ids_PK in zip(chosen, probabilities_BPK, ids_BPK, strict=False):
                found[row] = {
                    "text": items[row].fields["text"],
                    "masks": [
                        [
                            {"piece": piece, "score": round(float(score), 6)}
                            for piece, score in zip(tokenizer.pieces(ids), scores, strict=True)
                        ]
                        for ids, scores in zip(
                            ids_PK[: masks[row]].tolist(), scores_PK[: masks[row]], strict=True
                        )
                    ],
                }
        return found

    return fill


def _rows(items: Sequence[Item], scoring: Scoring) -> tuple[Rows, list[int]]:
    """Returns the sentences as rows, and how many masks each has."""
    tokenizer = scoring.tokenizer
    sentences = [_ids(item, scoring) for item in items]
    masks = [[i for i, token in enumerate(ids) if token == tokenizer.mask] for ids in sentences]
    positions_NP = np.zeros((len(items), max(map(len, masks))), np.int32)
    for row, positions in enumerate(masks):
        positions_NP[row, : len(positions)] = positions
    starts = np.cumsum([0, *map(len, sentences)])
    lengths = np.diff(starts).astype(np.int32)
    ids_F = np.concatenate(sentences).astype(np.int32)
    return Rows(ids_F, starts, lengths, {"positions": positions_NP}, {}), list(map(len, masks))


def _ids(item: Item, scoring: Scoring) -> list[int]:
    tokenizer = scoring.tokenizer
    try:
        ids = [tokenizer.cls, *tokenizer.encode_with_mask(item.text("text")), tokenizer.sep]
    except InputError as error:
        raise InputError(f"{item.where}: {error}") from None
    if len(ids) > scoring.length:
        raise InputError(
            f"{item.where}: {len(ids)} tokens with [CLS] and [SEP], but {scoring.length} are "
            "allowed; a mask could be cut off, so shorten the sentence"
        )
    return ids
