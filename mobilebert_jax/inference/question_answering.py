"""Answers to questions, as spans of the text that comes with each (SQuAD)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mobilebert_jax.config.finetune import Squad
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.finetune.squad import answers as squad_answers
from mobilebert_jax.finetune.squad import files as squad_files
from mobilebert_jax.finetune.squad.windows import windows
from mobilebert_jax.inference.batching import Scoring
from mobilebert_jax.inference.requests import Item

KINDS = ("question_answering",)
_LEAST_LENGTH = 5


def answerer(
    scoring: Scoring, *, top: int, may_be_unanswerable: bool, max_answer_length: int
) -> Callable[[Sequence[Item]], list[dict[str, Any]]]:
    """Returns what answers items with `question` and `context`.

    Each answer is a text of the context, "" where the best is that there is none, which only
    `may_be_unanswerable` allows; `answers` are the `top` best. `score` is the probability that the
    answer begins there times that it ends there, `share` the answer's among the best twenty.
    """
    scoring.check_pairs("answer")
    if scoring.length < _LEAST_LENGTH:
        raise InputError(
            f"--length={scoring.length} must be at least {_LEAST_LENGTH} for answer: [CLS], a "
            "piece of the question, [SEP], a piece of the context, [SEP]"
        )
    predict = scoring.predictor()
    usual = Squad()
    span = Squad(
        max_seq_length=scoring.length,
        doc_stride=min(usual.doc_stride, max(scoring.length // 3, 1)),
        max_query_length=min(usual.max_query_length, max(scoring.length // 4, 1)),
        max_answer_length=max_answer_length,
    )

    def answer(items: Sequence[Item]) -> list[dict[str, Any]]:
        paragraphs = [
            {
                "context": item.text("context"),
                "qas": [{"id": str(number), "question": item.text("question")}],
            }
            for number, item in enumerate(items)
        ]
        version = "v2.0" if may_be_unanswerable else "1.1"
        content = {"version": version, "data": [{"paragraphs": paragraphs}]}
        data = squad_files.from_json(content, items[0].where)
        cut = windows(data, scoring.tokenizer, span, training=False)
        rows = Rows(cut.ids_T, cut.starts, cut.second_start_W, {}, {})
        outputs_F2 = predict(scoring.params, rows)
        found = squad_answers.answers(data, cut, outputs_F2[:, 0], outputs_F2[:, 1], span)
        return [_one(found, str(number), top) for number in range(len(items))]

    return answer


def _one(found: squad_answers.Answers, id: str, top: int) -> dict[str, Any]:
    ranked = found.n_best[id]
    text = found.predictions[id]
    nothing = {"span_probability": 0.0, "probability": 0.0}
    return {
        "answer": text,
        **_scores(next((a for a in ranked if a["text"] == text), nothing)),
        "answers": [{"text": a["text"], **_scores(a)} for a in ranked[:top]],
    }


def _scores(answer: Mapping[str, Any]) -> dict[str, float]:
    return {
        "score": round(answer["span_probability"], 6),
        "share": round(answer["probability"], 6),
    }
