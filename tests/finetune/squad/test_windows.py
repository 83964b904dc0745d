import dataclasses
import itertools
import random

import numpy as np
import pytest

from mobilebert_jax.config import schema
from mobilebert_jax.config.finetune import Squad
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer
from mobilebert_jax.finetune.squad import files as squad_files
from mobilebert_jax.finetune.squad import windows as squad_windows

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> tokenizer.Tokenizer:
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    pieces = [*SPECIAL, *WORDS, "##n", "japan", "##ese", ".", "19", "##43"]
    path.write_text("".join(f"{piece}\n" for piece in pieces))
    return tokenizer.load(path, schema.Tokenizer())


def make(paragraphs, v2=False) -> squad_files.SquadData:
    """Paragraphs are (context, [(question, answer or None, start)])."""
    articles = []
    number = 0
    for context, asked in paragraphs:
        qas = []
        for question, answer, start in asked:
            answers = [] if answer is None else [{"text": answer, "answer_start": start}]
            qas.append({"id": str(number), "question": question, "answers": answers})
            number += 1
        articles.append({"context": context, "qas": qas})
    version = "v2.0" if v2 else "1.1"
    return squad_files.from_json({"version": version, "data": [{"paragraphs": articles}]}, "file")


def rows(made: squad_windows.Windows) -> list[list[int]]:
    return [made.ids_T[a:b].tolist() for a, b in itertools.pairwise(made.starts)]


def test_windows_worked_by_hand(words):
    data = make([("w0 w1 w2 w3 w4 w5 w6", [("w9 w8 w7", "w4 w5", 12), ("w9", "w0", 0)])])
    span = Squad(max_seq_length=9, doc_stride=2, max_query_length=2)
    made = squad_windows.windows(data, words, span, training=False)
    cls, sep, w = words.cls, words.sep, 5
    assert rows(made) == [
        [cls, w + 9, w + 8, sep, w, w + 1, w + 2, w + 3, sep],
        [cls, w + 9, w + 8, sep, w + 2, w + 3, w + 4, w + 5, sep],
        [cls, w + 9, w + 8, sep, w + 4, w + 5, w + 6, sep],
        [cls, w + 9, sep, w, w + 1, w + 2, w + 3, w + 4, sep],
        [cls, w + 9, sep, w + 2, w + 3, w + 4, w + 5, w + 6, sep],
    ]
    assert made.second_start_W.tolist() == [4, 4, 4, 3, 3]
    assert made.question_W.tolist() == [0, 0, 0, 1, 1]
    assert made.context_W.tolist() == [0] * 5
    assert made.offset_W.tolist() == [0, 2, 4, 0, 2]
    assert made.context_length_W.tolist() == [4, 4, 3, 5, 5]
    assert made.answer_start_W.tolist() == [0, 6, 4, 3, 0]
    assert made.answer_end_W.tolist() == [0, 7, 5, 3, 0]
    assert made.notes == {squad_windows.CUT: 1}
    assert made.ids_T.dtype == np.int32


def slow_windows(data, words, span, training):
    """What BERT's loops make: ids, second start, question, offset, start, end, most context."""
    found = []
    order = enumerate(data.questions)
    for q, question in sorted(order, key=lambda pair: pair[1].id) if training else order:
        context = data.contexts[question.context]
        ((document, spans),) = words.encode_with_spans([context])
        query = words.encode([question.text])[0][: span.max_query_length]
        good = [(t, s) for t, s in zip(question.answers, question.starts, strict=True) if s >= 0]
        answer = None
        if good and not question.impossible:
            text, begin = good[0]
            held = [
                i for i, (a, b) in enumerate(spans) if a < begin + len(text) and b > begin and a < b
            ]
            answer = (held[0], held[-1])
        if training and answer is None and not question.impossible:
            continue
        room = span.max_seq_length - len(query) - 3
        parts, start = [], 0
        while True:
            length = min(room, len(document) - start)
            parts.append((start, length))
            if start + length == len(document):
                break
            start += min(length, span.doc_stride)
        for number, (start, length) in enumerate(parts):
            part = document[start : start + length]
            ids = [words.cls, *query, words.sep, *part, words.sep]
            second = len(query) + 2
            marks = (0, 0)
            if answer and start <= answer[0] and answer[1] < start + length:
                marks = (answer[0] - start + second, answer[1] - start + second)
            most = [False] * len(ids)
            for i in range(length):
                most[second + i] = best_part(parts, start + i) == number
            found.append((ids, second, q, start, *marks, most))
    return found


def best_part(parts, position):
    best = None
    for number, (start, length) in enumerate(parts):
        if start <= position < start + length:
            left, right = position - start, start + length - 1 - position
            score = min(left, right) + 0.01 * length
            if best is None or score > best[0]:
                best = (score, number)
    return best[1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("length", "stride", "query"),
    [(12, 3, 4), (20, 7, 8), (40, 500, 10), (9, 1, 5), (400, 128, 64)],
)
def test_windows_are_those_of_the_obvious_loops(words, training, length, stride, query):
    chance = random.Random(length)
    paragraphs = []
    for _ in range(12):
        text = chance.choices(WORDS, k=chance.choice([0, 1, 3, 10, 60, 211]))
        context = " ".join(text)
        asked = []
        for _ in range(chance.randrange(4)):
            question = " ".join(chance.choices(WORDS, k=chance.randrange(12)))
            answer, start = None, 0
            if text and chance.random() < 0.8:
                first = chance.randrange(len(text))
                answer = " ".join(text[first : first + chance.randrange(1, 6)])
                start = len(" ".join([*text[:first], ""]))
            elif chance.random() < 0.5:
                answer = "nowhere"
            asked.append((question, answer, start))
        paragraphs.append((context, asked))
    data = make(paragraphs, v2=stride % 2 == 0)
    span = Squad(max_seq_length=length, doc_stride=stride, max_query_length=query)
    made = squad_windows.windows(data, words, span, training=training)
    most = made.max_context_T()
    assert most.dtype == bool
    split = [m.tolist() for m in np.split(most, made.starts[1:-1])]
    numbers = [made.second_start_W, made.question_W, made.offset_W, made.answer_start_W,
               made.answer_end_W]  # fmt: skip
    ours = list(zip(rows(made), *(n.tolist() for n in numbers), split, strict=True))
    assert ours == slow_windows(data, words, span, training)
    assert [data.questions[q].context for q in made.question_W] == made.context_W.tolist()


def test_training_leaves_out_what_has_no_answer_and_counts_it(words):
    asked = [("w1", "w9", 0), ("w2", "w0", 0), ("w3", None, 0)]
    span = Squad(max_seq_length=10, max_query_length=2)
    made = squad_windows.windows(make([("w0", asked)]), words, span, training=True)
    assert made.question_W.tolist() == [1]
    assert made.notes == {squad_windows.CUT: 0, squad_windows.LEFT_OUT: 2}
    made = squad_windows.windows(make([("w0", asked)], v2=True), words, span, training=True)
    assert made.question_W.tolist() == [1, 2]
    made = squad_windows.windows(make([("w0", asked)]), words, span, training=False)
    assert made.question_W.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"file: data\[0\].*any other of the 1 questions has an"):
        squad_windows.windows(make([("w0", asked[:1])]), words, span, training=True)


def test_an_impossible_question_is_marked_at_its_first_token(words):
    data = make([("w0 w1", [("w2", "w1", 3)])], v2=True)
    flagged = [data.questions[0]._replace(impossible=True)]
    data = dataclasses.replace(data, questions=flagged)
    made = squad_windows.windows(data, words, Squad(), training=True)
    assert (made.answer_start_W.tolist(), made.answer_end_W.tolist()) == ([0], [0])


@pytest.mark.parametrize(
    ("context", "answer", "start", "tokens"),
    [
        ("w0 Japanese w1", "Japan", 3, ["japan"]),
        ("w0 Japanese w1", "apan", 4, ["japan"]),
        ("w0 Japanese w1", "nese", 7, ["japan", "##ese"]),
        ("w0 1943.", "43", 5, ["##43"]),
        ("w0  w1. ", " w1. ", 3, ["w1", "."]),
        ("w0 w1n w2", "1n w", 4, ["w1", "##n", "w2"]),
    ],
)
def test_the_answer_is_the_smallest_run_that_covers_it(words, context, answer, start, tokens):
    data = make([(context, [("w9", answer, start)])])
    made = squad_windows.windows(data, words, Squad(), training=True)
    marked = made.ids_T[made.answer_start_W[0] : made.answer_end_W[0] + 1]
    assert words.pieces(marked) == tokens


def test_the_first_findable_answer_is_marked(words):
    content = {"data": [{"paragraphs": [{"context": "w0 w1 w2", "qas": [{
        "id": "a", "question": "w3", "answers": [{"text": "w7", "answer_start": 0},
        {"text": "w2", "answer_start": 6}, {"text": "w0", "answer_start": 0}]}]}]}]}  # fmt: skip
    data = squad_files.from_json(content, "file")
    made = squad_windows.windows(data, words, Squad(), training=False)
    assert (made.answer_start_W[0], made.answer_end_W[0]) == (5, 5)
