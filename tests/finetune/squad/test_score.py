import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.finetune.squad import files as squad_files
from mobilebert_jax.finetune.squad import score as squad_score


def make(*questions: tuple[str, list[str]], v2: bool) -> squad_files.SquadData:
    """Each question is its id and its gold answers."""
    asked = [
        squad_files.Question(id, "?", 0, tuple(gold), (0,) * len(gold), v2 and not gold, "file")
        for id, gold in questions
    ]
    return squad_files.SquadData(["context"], asked, v2, {})


def near(**metrics: float) -> dict:
    return {name: pytest.approx(value, abs=1e-9) for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat,\tsat.", "cat sat"),
        ("the a an", ""),
        ("a. b", "b"),
        ("t-he end", "end"),
        ("theatre anna A-list", "theatre anna alist"),
        ("1,000 U.S. dollars' worth", "1000 us dollars worth"),
        ("a東京 the 東京", "a東京 東京"),
        ("“curly” \u2013 é", "“curly” \u2013 é"),
        ("\u00a0x\u3000y", "x y"),
        ("!?.", ""),
        ("", ""),
    ],
)
def test_normalization(text, expected):
    assert squad_score.normalize(text) == expected


@pytest.mark.parametrize(
    ("gold", "prediction", "exact", "v1", "v2"),
    [
        ("the Cat", "cat.", 1, 1, 1),
        ("a cat sat", "cat ran", 0, 1 / 2, 1 / 2),
        ("x y z", "y", 0, 1 / 2, 1 / 2),
        # Repeated words count as often as both have them: precision 2/3, recall 2/4.
        ("new new york york", "york new the", 0, 2 / 3, 2 / 3),
        ("b b b", "b b b b b", 0, 3 / 4, 3 / 4),
        ("the b b c c", "b c c c d", 0, 2 * 3 / 5 * 3 / 4 / (3 / 5 + 3 / 4), 2 / 3),
        ("x", "y", 0, 0, 0),
        ("the", "an", 1, 0, 1),
        ("", "", 1, 0, 1),
        ("", "x", 0, 0, 0),
        ("x", "...", 0, 0, 0),
    ],
)
def test_exact_and_f1(gold, prediction, exact, v1, v2):
    assert squad_score.exact(gold, prediction) == exact
    assert squad_score.f1(gold, prediction, v2=False) == pytest.approx(v1, abs=1e-9)
    assert squad_score.f1(gold, prediction, v2=True) == pytest.approx(v2, abs=1e-9)


def test_v1_worked_by_hand():
    data = make(
        ("a", ["in the old town", "old town"]), ("b", ["1066"]), ("c", ["x y"]), ("d", ["the"]),
        ("b", ["nothing else"]), v2=False,
    )  # fmt: skip
    predictions = {"a": "Old Town!", "b": "1066", "d": "a", "z": "unasked"}
    # exact: a 1, b 1, c missing 0, d 1, second b 0. F1: 1, 1, 0, 0 (no word left), 0.
    assert squad_score.score(data, predictions) == near(exact_match=60, f1=40, missing=1, unknown=1)


def test_v2_worked_by_hand():
    data = make(
        ("a", ["old town"]), ("b", []), ("c", []), ("d", ["x y", "y z"]), ("e", ["the"]), v2=True
    )
    predictions = {"a": "the old town hall", "b": "", "c": "made up", "d": "y z", "e": ""}
    # exact: a 0, b 1, c 0, d 1, e 1 (its gold answer is an article only, and so empty).
    # f1: a 2 * (2/3 * 1) / (2/3 + 1) = 4/5, the others as exact.
    assert squad_score.score(data, predictions) == near(
        exact=60, f1=76, total=5,
        HasAns_exact=200 / 3, HasAns_f1=280 / 3, HasAns_total=3,
        NoAns_exact=50, NoAns_f1=50, NoAns_total=2, missing=0, unknown=0,
    )  # fmt: skip


def test_the_search_for_a_threshold_worked_by_hand():
    data = make(("a", ["x"]), ("b", []), ("c", ["y z"]), ("d", ["w"]), ("e", []), v2=True)
    predictions = {"a": "x", "b": "wrong", "c": "y", "d": "v", "e": ""}
    odds = {"e": -4.0, "d": -3.0, "a": -2.0, "c": 0.5, "b": 2.0, "z": 9.0}
    # All "" scores 2. Exact, by rising odds: e 2, d 2, a 3 (best), c 3, b 2.
    # F1: e 2, d 2, a 3, c 3 + 2/3 (best), b 2 + 2/3.
    # At threshold 0 the questions c and b count as "": a 1, d 0, e 1, b 1, c 0.
    metrics = squad_score.score(data, predictions, odds, 0.0)
    assert metrics == near(
        best_exact=60, best_exact_thresh=-2, best_f1=100 * (3 + 2 / 3) / 5, best_f1_thresh=0.5,
        exact=60, f1=60, total=5, HasAns_exact=100 / 3, HasAns_f1=100 / 3, HasAns_total=3,
        NoAns_exact=100, NoAns_f1=100, NoAns_total=2, missing=0, unknown=0,
    )  # fmt: skip
    # Odds are compared with "more than": at 0.5 the question c keeps its answer.
    assert squad_score.score(data, predictions, odds, 0.5)["f1"] == pytest.approx(
        100 * (3 + 2 / 3) / 5, abs=1e-9
    )


def test_predicting_nothing_is_best_at_threshold_zero():
    data = make(("a", ["x"]), ("b", []), v2=True)
    metrics = squad_score.score(data, {"a": "y", "b": "z"}, {"a": -1.0, "b": -2.0})
    assert (metrics["best_exact"], metrics["best_exact_thresh"]) == (50, 0)


def test_equal_odds_are_searched_in_the_order_of_the_file():
    data = make(("a", ["x"]), ("b", []), v2=True)
    predictions = {"a": "x", "b": "z"}
    first = squad_score.score(data, predictions, {"a": 1.0, "b": 1.0})
    last = squad_score.score(data, predictions, {"b": 1.0, "a": 1.0})
    assert (first["best_exact"], first["best_exact_thresh"]) == (100, 1)
    assert (last["best_exact"], last["best_exact_thresh"]) == (50, 0)


def test_v2_counts_missing_predictions_as_wrong_and_the_last_of_duplicate_ids():
    data = make(("a", ["x"]), ("b", []), ("c", []), ("a", ["y"]), v2=True)
    metrics = squad_score.score(data, {"a": "y", "b": ""}, {"a": 0.0, "b": 1.0})
    assert metrics == near(
        exact=200 / 3, f1=200 / 3, total=3, HasAns_exact=100, HasAns_f1=100, HasAns_total=1,
        NoAns_exact=50, NoAns_f1=50, NoAns_total=2, best_exact=200 / 3, best_exact_thresh=0,
        best_f1=200 / 3, best_f1_thresh=0, missing=1, unknown=0,
    )  # fmt: skip


def test_a_group_without_questions_has_no_metrics():
    metrics = squad_score.score(make(("a", ["x"]), v2=True), {"a": "x"})
    assert set(metrics) == {
        "exact", "f1", "total", "HasAns_exact", "HasAns_f1", "HasAns_total", "missing", "unknown",
    }  # fmt: skip


def test_v1_questions_without_an_answer_score_nothing():
    metrics = squad_score.score(make(("a", []), ("b", ["x"]), v2=False), {"a": "", "b": "x"})
    assert metrics == near(exact_match=50, f1=50, missing=0, unknown=0)


def test_predictions_without_null_odds_are_refused():
    data = make(("a", ["x"]), ("b", []), v2=True)
    with pytest.raises(InputError, match=r"null odds lack 1 of the predicted questions.*'b'"):
        squad_score.score(data, {"a": "x", "b": ""}, {"a": 0.0})
