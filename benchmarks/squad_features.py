"""How fast are SQuAD's questions made into windows, against a plain-Python BERT tokenizer?

    python -m benchmarks.squad_features SQUAD.json BERT_VOCAB.txt [--questions 1000] [--rounds 5]

The plain way does what BERT's run_squad.py does: for every question it tokenizes every word of the
context anew, and looks up every token's window of most context. Rounds alternate between the two
and count seconds of processor time on one core, so that other load on the machine does not matter;
the table shows medians. Both must make the same windows.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.plain_tokenizer import PlainTokenizer
from mobilebert_jax.config import schema
from mobilebert_jax.config.finetune import Squad
from mobilebert_jax.data import tokenizer
from mobilebert_jax.finetune.squad import files as squad_files
from mobilebert_jax.finetune.squad import windows as squad_windows
from mobilebert_jax.finetune.squad.files import SquadData


class Features(NamedTuple):
    """What run_squad.py makes of one window."""

    ids: list[int]
    mask: list[int]
    segments: list[int]
    most_context: dict[int, bool]
    """By position, of the context's tokens."""


def plain_features(data: SquadData, plain: PlainTokenizer, span: Squad) -> list[Features]:
    """Returns the windows of all questions, one question after the other."""
    features = []
    for question in data.questions:
        query = plain.tokenize(question.text)[: span.max_query_length]
        document, words = [], data.contexts[question.context].split()
        word_of_token = []
        for number, word in enumerate(words):
            for piece in plain.tokenize(word):
                word_of_token.append(number)
                document.append(piece)
        room = span.max_seq_length - len(query) - 3
        pieces_of_document, start = [], 0
        while True:
            length = min(room, len(document) - start)
            pieces_of_document.append((start, length))
            if start + length == len(document):
                break
            start += min(length, span.doc_stride)
        for number, (start, length) in enumerate(pieces_of_document):
            tokens = ["[CLS]", *query, "[SEP]"]
            segments = [0] * len(tokens)
            most = {}
            for i in range(start, start + length):
                most[len(tokens)] = _most_context(pieces_of_document, i) == number
                tokens.append(document[i])
                segments.append(1)
            tokens.append("[SEP]")
            segments.append(1)
            padding = [0] * (span.max_seq_length - len(tokens))
            mask = [1] * len(tokens) + padding
            features.append(Features(plain.ids(tokens) + padding, mask, segments + padding, most))
    return features


def _most_context(parts: list[tuple[int, int]], position: int) -> int:
    best, found = -1.0, -1
    for number, (start, length) in enumerate(parts):
        left, right = position - start, start + length - 1 - position
        if left >= 0 and right >= 0:
            score = min(left, right) + 0.01 * length
            if score > best:
                best, found = score, number
    return found


def check_same(made: squad_windows.Windows, features: list[Features]) -> None:
    """Ends the program if the two ways differ in a token or in its window of most context."""
    expected = [
        (number, id, feature.most_context.get(position, False))
        for number, feature in enumerate(features)
        for position, id in enumerate(feature.ids[: sum(feature.mask)])
    ]
    window = [
        w for w, n in enumerate((made.starts[1:] - made.starts[:-1]).tolist()) for _ in range(n)
    ]
    ours = list(zip(window, made.ids_T.tolist(), made.max_context_T().tolist(), strict=True))
    if ours != expected:
        raise SystemExit("the two ways make different windows of these questions")


def main() -> None:
    """Runs the rounds, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="questions in SQuAD's format")
    parser.add_argument("vocab", type=Path, help="BERT's uncased vocab.txt")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("squad_features.json"))
    arguments = parser.parse_args()
    # One core means one: the tokenizer library would otherwise start threads of its own.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    whole = squad_files.read(arguments.file)
    questions = whole.questions[: arguments.questions]
    contexts = whole.contexts[: questions[-1].context + 1]
    data = SquadData(contexts, questions, whole.v2, whole.notes)
    plain, span = PlainTokenizer(arguments.vocab), Squad()
    seconds: dict[str, list[float]] = {"plain Python": [], "windows": []}
    for _ in range(arguments.rounds):
        start = time.process_time()
        features = plain_features(data, plain, span)
        seconds["plain Python"].append(time.process_time() - start)
        # Loaded anew, because a tokenizer remembers the words of the round before.
        ours = tokenizer.load(arguments.vocab, schema.Tokenizer())
        start = time.process_time()
        made = squad_windows.windows(data, ours, span, training=False)
        made.max_context_T()
        seconds["windows"].append(time.process_time() - start)
        check_same(made, features)
    report(arguments, len(questions), len(features), seconds)


def report(
    arguments: argparse.Namespace, questions: int, windows: int, seconds: dict[str, list[float]]
) -> None:
    """Prints the table of medians and writes it with every round as JSON."""
    medians = {way: statistics.median(rounds) for way, rounds in seconds.items()}
    times = medians["plain Python"] / medians["windows"]
    print(f"{questions} questions, {windows} windows, {arguments.rounds} rounds, one core")
    print(f"{'':>14} {'seconds':>8} {'questions/s':>12} {'lowest':>8} {'highest':>8}")
    for way, rounds in seconds.items():
        print(
            f"{way:>14} {medians[way]:>8.3f} {questions / medians[way]:>12.0f} "
            f"{min(rounds):>8.3f} {max(rounds):>8.3f}"
        )
    print(f"{times:.1f} times as fast as plain Python")
    content = {
        "machine": {"python": platform.python_version()},
        "questions": questions,
        "windows": windows,
        "median_seconds": medians,
        "times_plain": times,
        "rounds": seconds,
    }
    arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
