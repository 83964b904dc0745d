"""Exact match and F1 of answers, by the rules of SQuAD's official scorers v1.1 and v2.0."""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.squad.files import SquadData

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class _Score(NamedTuple):
    """What one question scores, from 0 to 1."""

    exact: float
    f1: float


def normalize(text: str) -> str:
    """Returns `text` in lower case, without ASCII punctuation, English articles and needless space.

    Punctuation goes first, so that "a." is an article and "t-he" becomes one.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact(gold: str, prediction: str) -> float:
    """Returns 1 if the two are the same after `normalize`, else 0."""
    return float(normalize(gold) == normalize(prediction))


def f1(gold: str, prediction: str, *, v2: bool) -> float:
    """Returns the harmonic mean of precision and recall of words, counted with repetitions.

    Where one of the two has no word left, v2.0 gives 1 if the other has none either; v1.1 gives 0.
    """
    gold_words, words = normalize(gold).split(), normalize(prediction).split()
    if v2 and not (gold_words and words):
        return float(gold_words == words)
    same = (Counter(gold_words) & Counter(words)).total()
    if not same:
        return 0.0
    precision, recall = same / len(words), same / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def score(
    data: SquadData,
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """Returns metrics under the official names, in percent.

    v1.1: `exact_match`, `f1`; a question that occurs twice counts twice, with the one prediction of
    its id. v2.0: `exact`, `f1`, `total`, the same with `HasAns_` and `NoAns_`; of questions with
    the same id the last counts. With `null_odds`, a prediction whose odds exceed `threshold` counts
    as "", and `best_exact`, `best_exact_thresh`, `best_f1` and `best_f1_thresh` are those of the
    best threshold; `predictions` should then hold texts even where no answer is likelier
    (`Answers.spans`).

    Both: `missing` questions have no prediction and score 0 (the scorer of v2.0 breaks off there),
    `unknown` predictions have an id that no question has. Raises InputError if a prediction has no
    null odds.
    """
    asked = {question.id for question in data.questions}
    counts = {
        "missing": float(sum(question.id not in predictions for question in data.questions)),
        "unknown": float(sum(id not in asked for id in predictions)),
    }
    if not data.v2:
        return {**_score_v1(data, predictions), **counts}
    if null_odds is not None and (lacking := asked & predictions.keys() - null_odds.keys()):
        raise InputError(
            f"the null odds lack {len(lacking)} of the predicted questions, "
            f"the first of them {min(lacking)!r}"
        )
    return {**_score_v2(data, predictions, null_odds, threshold), **counts}


def _score_v1(data: SquadData, predictions: Mapping[str, str]) -> dict[str, float]:
    scores = [
        _best(question.answers, predictions[question.id], v2=False)
        for question in data.questions
        if question.id in predictions
    ]
    total = len(data.questions)
    return {
        "exact_match": 100 * sum(s.exact for s in scores) / total,
        "f1": 100 * sum(s.f1 for s in scores) / total,
    }


def _score_v2(
    data: SquadData,
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None,
    threshold: float,
) -> dict[str, float]:
    questions = {question.id: question for question in data.questions}
    answerable = {id: bool(question.answers) for id, question in questions.items()}
    raw: dict[str, _Score] = {}
    for id, question in questions.items():
        if id in predictions:
            gold = [answer for answer in question.answers if normalize(answer)]
            raw[id] = _best(gold or [""], predictions[id], v2=True)
    scores = dict(raw)
    for id in raw:
        if null_odds is not None and null_odds[id] > threshold:
            unanswered = float(not answerable[id])
            scores[id] = _Score(unanswered, unanswered)
    groups = {
        "": list(questions),
        "HasAns_": [id for id in questions if answerable[id]],
        "NoAns_": [id for id in questions if not answerable[id]],
    }
    result: dict[str, float] = {}
    for prefix, ids in groups.items():
        found = [scores[id] for id in ids if id in scores]
        if ids:
            result[f"{prefix}exact"] = 100 * sum(s.exact for s in found) / len(ids)
            result[f"{prefix}f1"] = 100 * sum(s.f1 for s in found) / len(ids)
            result[f"{prefix}total"] = float(len(ids))
    if null_odds is not None:
        for name in _Score._fields:
            values = {id: getattr(s, name) for id, s in raw.items()}
            best, at = _best_threshold(values, predictions, null_odds, answerable)
            result[f"best_{name}"] = 100 * best / len(questions)
            result[f"best_{name}_thresh"] = at
    return result


def _best(gold: Sequence[str], prediction: str, *, v2: bool) -> _Score:
    """Returns the best of each figure over all gold answers; 0 if there is none."""
    return _Score(
        max((exact(answer, prediction) for answer in gold), default=0.0),
        max((f1(answer, prediction, v2=v2) for answer in gold), default=0.0),
    )


def _best_threshold(
    scores: Mapping[str, float],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float],
    answerable: Mapping[str, bool],
) -> tuple[float, float]:
    """Returns the largest sum of scores that a threshold gives, and the smallest such threshold.

    From a threshold below all odds, at which every prediction is "", to one above all. The official
    search looks at questions one by one even where their odds are equal, in the order of
    `null_odds`; and it names threshold 0 where nothing is better than predicting "" everywhere.
    """
    current = best = float(sum(not answerable[id] for id in scores))
    at = 0.0
    for id in sorted(null_odds, key=lambda id: null_odds[id]):
        if id not in scores:
            continue
        if answerable[id]:
            current += scores[id]
        elif predictions[id]:
            current -= 1
        if current > best:
            best, at = current, null_odds[id]
    return best, at
