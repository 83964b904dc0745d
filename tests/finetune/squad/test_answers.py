# ruff: noqa: RUF001  Arabic letters are meant to be Arabic letters.
import json
import math

import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.config.finetune import Squad
from mobilebert_jax.data import tokenizer
from mobilebert_jax.finetune.squad import answers as squad_answers
from mobilebert_jax.finetune.squad import files as squad_files
from mobilebert_jax.finetune.squad import windows as squad_windows

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{i}" for i in range(12)]
OTHER = [
    "東", "京", "か", "##く", "cafe", "naive", "محمد", "الر", "##سول", "می", "##خواهم", "कि", "क",
]  # fmt: skip


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("".join(f"{p}\n" for p in [*SPECIAL, *WORDS, *OTHER]), encoding="utf-8")
    return tokenizer.load(path, schema.Tokenizer())


def make(*pairs: tuple[str, list[str]], v2: bool) -> squad_files.SquadData:
    """Each pair is a context and the ids of its questions."""
    paragraphs = [
        {"context": context, "qas": [{"id": id, "question": "w11", "answers": []} for id in ids]}
        for context, ids in pairs
    ]
    version = "v2.0" if v2 else "1.1"
    return squad_files.from_json({"version": version, "data": [{"paragraphs": paragraphs}]}, "f")


def logits(made: squad_windows.Windows, *scored: tuple[int, int, float]) -> np.ndarray:
    """Zeros, but for (window, position, value)."""
    found = np.zeros(len(made.ids_T), np.float32)
    for window, position, value in scored:
        found[made.starts[window] + position] = value
    return found


def test_answers_worked_by_hand(words):
    # [CLS] w11 [SEP] w0 w1 w0 w2 [SEP]: the context begins at position 3.
    data = make(("w0 w1 w0 w2", ["q"]), v2=True)
    span = Squad(
        max_seq_length=20,
        max_query_length=4,
        n_best_size=3,
        max_answer_length=2,
        null_score_diff_threshold=1.5,
    )
    made = squad_windows.windows(data, words, span, training=False)
    # Best starts: 5 (4.0), 3 (3.0), 0 (2.0). Best ends: 5 (3.0), 6 (1.0), 0 (0.5).
    start = logits(made, (0, 5, 4.0), (0, 3, 3.0), (0, 0, 2.0))
    end = logits(made, (0, 5, 3.0), (0, 6, 1.0), (0, 0, 0.5))
    found = squad_answers.answers(data, made, start, end, span)
    # 5-5 "w0" 7.0; 5-6 "w0 w2" 5.0; no answer 2.5. 3-5 is three tokens long, 3-6 four.
    total = math.exp(7) + math.exp(5) + math.exp(2.5)
    # Of starts and of ends: [CLS] and the four context tokens.
    starts = math.exp(2) + math.exp(3) + math.exp(0) + math.exp(4) + math.exp(0)
    ends = math.exp(0.5) + 2 * math.exp(0) + math.exp(3) + math.exp(1)

    def entry(text: str, start: float, end: float) -> dict[str, object]:
        score = math.exp(start + end)
        return {
            "text": text,
            "probability": pytest.approx(score / total, abs=1e-12),
            "start_logit": start,
            "end_logit": end,
            "span_probability": pytest.approx(score / starts / ends, abs=1e-12),
        }

    best = [entry("w0", 4.0, 3.0), entry("w0 w2", 4.0, 1.0), entry("", 2.0, 0.5)]
    assert found.n_best["q"] == best
    assert found.null_odds == {"q": -4.5}
    assert found.predictions == found.spans == {"q": "w0"}


@pytest.mark.parametrize(("threshold", "prediction"), [(0.99, ""), (1.0, "w1")])
def test_no_answer_is_predicted_above_the_threshold(words, threshold, prediction):
    data = make(("w0 w1 w2", ["q"]), v2=True)
    span = Squad(max_seq_length=20, max_query_length=4, null_score_diff_threshold=threshold)
    made = squad_windows.windows(data, words, span, training=False)
    start = logits(made, (0, 4, 4.0), (0, 0, 6.0))
    end = logits(made, (0, 4, 3.0), (0, 0, 2.0))
    found = squad_answers.answers(data, made, start, end, span)
    assert found.null_odds == {"q": 1.0}
    assert found.predictions == {"q": prediction}
    assert found.spans == {"q": "w1"}
    assert [entry["text"] for entry in found.n_best["q"]][:2] == ["", "w1"]


def test_the_null_score_is_the_least_of_all_windows(words):
    data = make(("w0 w1 w2 w3 w4 w5", ["q"]), v2=True)
    span = Squad(max_seq_length=8, max_query_length=4, doc_stride=2)
    made = squad_windows.windows(data, words, span, training=False)
    assert len(made.question_W) == 2
    start = logits(made, (0, 0, 5.0), (1, 0, 1.0), (1, 5, 9.0))
    end = logits(made, (0, 0, 1.0), (1, 0, 2.5), (1, 5, 1.0))
    found = squad_answers.answers(data, made, start, end, span)
    assert found.null_odds == {"q": 3.5 - 10.0}
    assert found.predictions == {"q": "w4"}


@pytest.mark.parametrize("v2", [True, False])
def test_a_question_without_a_valid_span_is_answered_with_nothing(words, v2):
    data = make(("w0 w1", ["q"]), ("", ["r"]), v2=v2)
    span = Squad(max_seq_length=20, max_query_length=4, n_best_size=1)
    made = squad_windows.windows(data, words, span, training=False)
    # The only end looked at comes before the only start.
    start = logits(made, (0, 4, 1.0), (0, 0, 0.5))
    end = logits(made, (0, 3, 1.0))
    found = squad_answers.answers(data, made, start, end, span)
    assert found.predictions == found.spans == {"q": "", "r": ""}
    assert [entry["text"] for entry in found.n_best["q"]] == [""]
    assert found.null_odds == ({"q": 0.5, "r": 0.0} if v2 else {})


def slow_answers(data, made, start, end, span):
    """BERT's loops over windows, starts and ends: (text, start logit, end logit), best first."""
    most = made.max_context_T()
    result = []
    for q, question in enumerate(data.questions):
        context = data.contexts[question.context]
        found, null = [], None
        for w in np.flatnonzero(made.question_W == q):
            flat, length = int(made.starts[w]), int(made.starts[w + 1] - made.starts[w])
            second = int(made.second_start_W[w])
            s, e = start[flat : flat + length].tolist(), end[flat : flat + length].tolist()
            if null is None or s[0] + e[0] < sum(null):
                null = (s[0], e[0])
            for i in sorted(range(length), key=lambda k: -s[k])[: span.n_best_size]:
                for j in sorted(range(length), key=lambda k: -e[k])[: span.n_best_size]:
                    inside = second <= i <= j < length - 1 and j - i < span.max_answer_length
                    if inside and most[flat + i]:
                        at = int(made.offset_W[w]) - second
                        spans = made.spans[question.context]
                        text = context[spans[at + i][0] : spans[at + j][1]]
                        found.append((text, s[i], e[j]))
        if data.v2:
            found.append(("", *null))
        kept = []
        for candidate in sorted(found, key=lambda c: -(c[1] + c[2])):
            if len(kept) < span.n_best_size and candidate[0] not in [k[0] for k in kept]:
                kept.append(candidate)
        if data.v2 and "" not in [k[0] for k in kept]:
            kept.append(("", *null))
        result.append(kept or [("", 0.0, 0.0)])
    return result


@pytest.mark.parametrize("v2", [True, False])
@pytest.mark.parametrize("ties", [True, False])
def test_answers_are_those_of_the_obvious_loops(words, v2, ties, monkeypatch):
    monkeypatch.setattr(squad_answers, "_WINDOWS_AT_ONCE", 3)
    random = np.random.default_rng(0)
    pairs = []
    for number, length in enumerate([0, 1, 5, 12, 30, 61, 7]):
        context = " ".join(random.choice(WORDS, length))
        pairs.append((context, [f"{number}.{i}" for i in range(2)]))
    data = make(*pairs, v2=v2)
    span = Squad(
        max_seq_length=17, max_query_length=4, doc_stride=5, n_best_size=4, max_answer_length=3
    )
    made = squad_windows.windows(data, words, span, training=False)
    start, end = random.normal(size=(2, len(made.ids_T))).astype(np.float32) * 3
    if ties:
        start, end = np.round(start / 2), np.round(end / 2)
    found = squad_answers.answers(data, made, start, end, span)
    for question, expected in zip(
        data.questions, slow_answers(data, made, start, end, span), strict=True
    ):
        got = [(e["text"], e["start_logit"], e["end_logit"]) for e in found.n_best[question.id]]
        assert got == expected
        probabilities = [entry["probability"] for entry in found.n_best[question.id]]
        assert sum(probabilities) == pytest.approx(1, abs=1e-12)
        texts = [(text, s + e) for text, s, e in expected if text]
        assert found.spans[question.id] == (texts[0][0] if texts else "")
        if v2:
            null = next(s + e for text, s, e in expected if not text)
            odds = null - (texts[0][1] if texts else 0.0)
            assert found.null_odds[question.id] == pytest.approx(odds, abs=1e-9)
            assert (found.predictions[question.id] == "") == (odds > 0 or not texts)


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("w0 東京タ w1", "東京"),
        ("w0 か\u3099く w1", "か\u3099く"),
        ("w0 カフェ w1", "カフェ"),
        ("w0 cafe\u0301 w1", "cafe\u0301"),
        ("w0 naïve w1", "naïve"),
        ("w0 مُحَمَّدٌ w1", "مُحَمَّدٌ"),
        ("w0 الرَّسُولِ، w1", "الرَّسُولِ"),
        ("w0 می\u200cخواهم w1", "می\u200cخواهم"),
        ("w0 क\u094d\u200d w1", "क\u094d\u200d"),
        ("w0 👩\u200d👧\u200d👦 w1", "👩\u200d👧\u200d👦"),
        ("w0 ❤\ufe0f\u200d🔥 w1", "❤\ufe0f\u200d🔥"),
        ("w0 👍🏽 w1", "👍🏽"),
    ],
)
def test_answers_of_every_script_come_out_whole(words, context, answer):
    content = {"data": [{"paragraphs": [{"context": context, "qas": [
        {"id": "q", "question": "w11",
         "answers": [{"text": answer, "answer_start": context.index(answer)}]}]}]}]}  # fmt: skip
    data = squad_files.from_json(content, "file")
    span = Squad()
    made = squad_windows.windows(data, words, span, training=True)
    start = logits(made, (0, int(made.answer_start_W[0]), 9.0))
    end = logits(made, (0, int(made.answer_end_W[0]), 9.0))
    found = squad_answers.answers(data, made, start, end, span)
    assert found.predictions == {"q": answer}


@pytest.mark.parametrize(
    ("text", "begin", "end", "expected"),
    [
        ("cafe\u0301s", 0, 4, "cafe\u0301"),
        ("e\u0301\u0323 x", 0, 1, "e\u0301\u0323"),
        ("کتابِ من", 0, 4, "کتابِ"),
        ("می\u200cخواهم", 0, 2, "می"),
        ("👩\u200d👧 x", 0, 1, "👩\u200d👧"),
        ("👩🏽\u200d🚀🚀", 0, 1, "👩🏽\u200d🚀"),
        ("🏴\U000e0067\U000e0062\U000e007f!", 0, 1, "🏴\U000e0067\U000e0062\U000e007f"),
        ("1\ufe0f\u20e32", 0, 1, "1\ufe0f\u20e3"),
        ("ه\u200d است", 0, 1, "ه\u200d"),
        ("東京都", 0, 2, "東京"),
        ("abc", 1, 2, "b"),
        ("e\u0301", 0, 0, ""),
    ],
)
def test_a_cut_ends_with_a_whole_character(text, begin, end, expected):
    assert squad_answers.cut(text, begin, end) == expected


def test_the_files_are_the_official_ones(words, tmp_path):
    data = make(("w0 w1", ["b", "a"]), v2=True)
    made = squad_windows.windows(data, words, Squad(), training=False)
    zeros = np.zeros(len(made.ids_T))
    found = squad_answers.answers(data, made, zeros, zeros, Squad())
    squad_answers.write(found, tmp_path / "out")
    read = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").iterdir()}
    assert read == {
        "predictions.json": {"b": "w0", "a": "w0"},
        "nbest_predictions.json": dict(found.n_best),
        "null_odds.json": {"b": 0.0, "a": 0.0},
    }
    assert list(read["null_odds.json"]) == ["b", "a"]
    data = make(("w0 w1", ["b"]), v2=False)
    made = squad_windows.windows(data, words, Squad(), training=False)
    zeros = np.zeros(len(made.ids_T))
    squad_answers.write(squad_answers.answers(data, made, zeros, zeros, Squad()), tmp_path / "v1")
    names = sorted(path.name for path in (tmp_path / "v1").iterdir())
    assert names == ["nbest_predictions.json", "predictions.json"]
