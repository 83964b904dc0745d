"""Whether a LiteRT file drops into an app: which app's task reads it as it is, or why none does.

MediaPipe's text tasks split text themselves, by BERT's tokenizer with the settings of the published
uncased models. Sources: `bert_preprocessor_calculator.cc` and `bert_tokenizer.h` of MediaPipe 1.2,
and `bert_question_answerer.cc` of the TFLite Task Library 0.4.4.
"""

from typing import NamedTuple

from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.data.tokenizer_base import SPECIAL_TOKENS
from mobilebert_jax.data.wordpiece import WordPiece
from mobilebert_jax.interop.model import Kind, Model, numbered_labels

TASKS: dict[Kind, str] = {
    "sequence_classification": "MediaPipe's TextClassifier",
    "bare": "MediaPipe's TextEmbedder",
    "question_answering": "the TFLite Task Library's BertQuestionAnswerer",
}
"""What reads a network of a kind."""

ANSWERER_LENGTH = 384
"""Tokens that BertQuestionAnswerer reads; no setting changes it."""
ANSWERER_MODES = ("float32", "weight_int8")
"""What its runtime, of 2023, computes as today's does; of other int8 it was seen to make other
numbers."""


SPLITTING = (
    "Apps split printable ASCII as this network does, but for words of more than 100 characters, "
    "which are unknown to them. They lower no other letter and drop no accent."
)


class Fit(NamedTuple):
    """What reads a file as it is; where nothing does, why."""

    task: str
    obstacle: str = ""


def fit(model: Model, length: int, mode: str, *, pairs: bool = False) -> Fit:
    """Returns which app's task reads a file of a network, or why none does.

    Args:
      model: the network.
      length: tokens of the file.
      mode: of `litert.model.MODES`.
      pairs: whether it was trained on pairs of texts.
    """
    if model.kind not in TASKS:
        kind = model.kind.replace("_", " ")
        return Fit("", f"neither MediaPipe nor the TFLite Task Library has a task for {kind}")
    task = TASKS[model.kind]
    obstacle = _of_tokenizer(model.tokenizer) or _of_labels(labels(model))
    if not obstacle and model.kind == "question_answering":
        obstacle = _of_answerer(task, length, mode)
    elif not obstacle and pairs:
        obstacle = f"it was trained on pairs of texts, and {task} reads one text"
    return Fit("", obstacle) if obstacle else Fit(task)


def labels(model: Model) -> tuple[str, ...]:
    """Returns the names of a classifier's classes; none of what has no classes."""
    if model.kind != "sequence_classification":
        return ()
    outputs = len(model.params["task"]["dense"]["bias"])
    return model.labels or (numbered_labels(outputs) if outputs > 1 else ())


def vocabulary(tokenizer: Tokenizer) -> bytes:
    """Returns `vocab.txt` as apps read it: they skip blank lines, which have ids here."""
    pieces = tokenizer.pieces(range(tokenizer.size))
    # Text is split at spaces, so that no word of it is a piece with one.
    return "".join(f"{piece or f'[blank {n}]'}\n" for n, piece in enumerate(pieces)).encode()


def _of_tokenizer(tokenizer: Tokenizer | None) -> str:
    if tokenizer is None:
        return "it has no tokenizer"
    if not isinstance(tokenizer, WordPiece):
        return f"its tokenizer is of the kind {tokenizer.kind!r}, and apps have BERT's WordPiece"
    if not tokenizer.lowercase:
        return "its vocabulary is cased, and apps lower all text"
    berts = [spellings[0] for spellings in SPECIAL_TOKENS.values()]
    spelled = tokenizer.pieces(tokenizer.special_ids)
    if spelled != berts or tokenizer.pad != 0:
        return (
            f"its special tokens are {', '.join(spelled)} with padding {tokenizer.pad}, and apps "
            f"have {', '.join(berts)} with padding 0"
        )
    pieces = tokenizer.pieces(range(tokenizer.size))
    if sum(not piece.isascii() for piece in pieces) > tokenizer.size / 2:
        return "most of its vocabulary is not ASCII, and apps lower and clean up ASCII alone"
    return ""


def _of_labels(names: tuple[str, ...]) -> str:
    odd = next((name for name in names if len(name.splitlines()) != 1), None)
    return "" if odd is None else f"its label {odd!r} is not one line, as in apps' lists of labels"


def _of_answerer(task: str, length: int, mode: str) -> str:
    if length != ANSWERER_LENGTH:
        return f"{task} reads {ANSWERER_LENGTH} tokens, and its files have {length}"
    if mode not in ANSWERER_MODES:
        return f"the runtime of {task}, of 2023, computes other numbers with this kind of int8"
    return ""
