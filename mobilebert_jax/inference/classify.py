"""Classes or a number for texts and pairs of texts, tags for words, the best of several choices."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.examples import Example, Tagged
from mobilebert_jax.finetune.features import of_sentences, of_words
from mobilebert_jax.inference.batching import Scoring, softmax
from mobilebert_jax.inference.requests import Item
from mobilebert_jax.interop.model import numbered_labels

KINDS = ("sequence_classification", "token_classification", "multiple_choice")

Answer = Callable[[Sequence[Item]], list[dict[str, Any]]]


def answerer(scoring: Scoring) -> Answer:
    """Returns what answers items, each with the fields that the network's kind needs.

    `text` and, for pairs, `second_text`; `text` and a list `choices` for multiple choice; `text` of
    words with spaces between them, or a list `words`, for tags.
    """
    if scoring.kind == "token_classification":
        return _tagger(scoring)
    if scoring.kind == "multiple_choice":
        return _chooser(scoring)
    predict = scoring.predictor()
    number = not scoring.labels

    def classify(items: Sequence[Item]) -> list[dict[str, Any]]:
        examples = [scoring.example(item) for item in items]
        rows, _ = of_sentences(examples, scoring.tokenizer, scoring.length, number=number)
        outputs_NC = predict(scoring.params, rows)
        if number and outputs_NC.shape[1] == 1:
            return [{"value": float(value)} for value in outputs_NC[:, 0]]
        labels = scoring.labels or numbered_labels(outputs_NC.shape[1])
        return [_scored(labels, scores) for scores in softmax(outputs_NC)]

    return classify


def _scored(labels: Sequence[str], scores_C: np.ndarray) -> dict[str, Any]:
    best = int(np.argmax(scores_C))
    scores = {label: round(float(s), 6) for label, s in zip(labels, scores_C, strict=True)}
    return {"label": labels[best], "score": scores[labels[best]], "scores": scores}


def _tagger(scoring: Scoring) -> Answer:
    predict = scoring.predictor()

    def tag(items: Sequence[Item]) -> list[dict[str, Any]]:
        sentences = [Tagged(_words(item), (), item.where) for item in items]
        rows, _ = of_words(sentences, scoring.tokenizer, scoring.length)
        scores_FC = softmax(predict(scoring.params, rows))
        labels = scoring.labels or numbered_labels(scores_FC.shape[1])
        first_F = rows.token_targets["label_weights"] > 0
        found = []
        for index, sentence in enumerate(sentences):
            span = slice(rows.starts[index], rows.starts[index + 1])
            scores_WC = scores_FC[span][first_F[span]]
            # Words behind the longest length have no scores, and so no tag.
            kept = sentence.words[: len(scores_WC)]
            found.append(
                {
                    "words": list(kept),
                    "tags": [labels[i] for i in scores_WC.argmax(axis=1)],
                    "scores": [round(float(s), 6) for s in scores_WC.max(axis=1)],
                    "words_left_out": len(sentence.words) - len(kept),
                }
            )
        return found

    return tag


def _words(item: Item) -> tuple[str, ...]:
    if "words" not in item.fields:
        return tuple(item.text("text").split())
    return _texts(item, "words")


def _texts(item: Item, name: str) -> tuple[str, ...]:
    value = item.fields.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise InputError(
            f"{item.where}: {name!r} must be a list of texts, not {json.dumps(value)[:60]}"
        )
    return tuple(value)


def _chooser(scoring: Scoring) -> Answer:
    scoring.check_pairs("choices")
    predict = scoring.predictor()

    def choose(items: Sequence[Item]) -> list[dict[str, Any]]:
        choices = [_texts(item, "choices") for item in items]
        examples = [
            Example(item.where, item.text("text"), choice, None, item.where)
            for item, of_item in zip(items, choices, strict=True)
            for choice in of_item
        ]
        rows, _ = of_sentences(examples, scoring.tokenizer, scoring.length, number=True)
        outputs_N = predict(scoring.params, rows)[:, 0]
        ends = np.cumsum([len(of_item) for of_item in choices])
        parts = np.split(outputs_N, ends[:-1])
        return [
            {
                "choice": of_item[int(np.argmax(part))],
                "index": int(np.argmax(part)),
                "scores": [round(float(s), 6) for s in softmax(part)],
            }
            for of_item, part in zip(choices, parts, strict=True)
        ]

    return choose
