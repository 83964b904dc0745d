"""The door: a network and lines of text in, one JSON object a line out, in the same order.

echo 'The capital of France is [MASK].' | python -m mobilebert_jax.inference fill-mask --model M
python -m mobilebert_jax.inference classify --model runs/glue/trials/sst-2-... < sentences.txt
python -m mobilebert_jax.inference answer --model M < questions.jsonl
python -m mobilebert_jax.inference embed --model M < texts.jsonl > vectors.jsonl
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from mobilebert_jax import storage
from mobilebert_jax.config.schema import InputError, Tokenizer, nearest
from mobilebert_jax.exit_codes import (
    INPUT_ERROR_CODE,
    INTERRUPTED_CODE,
    came_of_interrupt,
    printable,
)
from mobilebert_jax.inference import requests as items_lib
from mobilebert_jax.inference.requests import Item

if TYPE_CHECKING:
    from mobilebert_jax.inference.batching import Known

WRITE_ERROR_CODE = 1

MODES = {
    "fill-mask": "the likeliest pieces for every [MASK] of a text",
    "classify": "classes, a number, tags or the best choice, whichever the network was trained for",
    "answer": 'answers to JSON lines with "question" and "context"',
    "embed": "a vector for every text",
}
Answer = Callable[[Sequence[Item]], list[dict[str, Any]]]

GROUP_BATCHES = 8
"""Batches that are read before the first is answered; texts of like length go together."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}\n{self.format_usage().rstrip()}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options; raises InputError with the nearest valid choice."""
    parser = _Parser("python -m mobilebert_jax.inference", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    modes = "; ".join(f"{name}: {what}" for name, what in MODES.items())
    parser.add_argument("mode", metavar="|".join(MODES), help=modes)
    parser.add_argument("--model", required=True, help="a run's stage or trial, an export, ...")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--length", type=int, help="tokens at most; longer texts are cut")
    parser.add_argument("--top", type=int, default=5, help="answers, or pieces for a mask")
    parser.add_argument("--pool", help="embed: mean (usual), first or cls")
    parser.add_argument(
        "--max_answer_length", type=int, default=30, help="answer: tokens of an answer at most"
    )
    parser.add_argument(
        "--may_be_unanswerable", action="store_true", help='answer "" where there is no answer'
    )
    options = parser.parse_args(arguments)
    if options.mode not in MODES:
        raise InputError(
            f"there is no mode {options.mode!r}; there are {', '.join(MODES)}; "
            f"the nearest is {nearest(options.mode, MODES)!r}"
        )
    for name in ("batch_size", "top", "max_answer_length"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}={getattr(options, name)} must be at least 1")
    return options


def _answerer(
    options: argparse.Namespace,
) -> tuple[Answer, int, "Known"]:
    """Returns what answers, how many items at once are best, and what counts unknown tokens."""
    # Imported late: a mistake on the command line should not wait for jax to load.
    from mobilebert_jax.inference import (
        batching,
        classify,
        embed,
        fill_mask,
        load,
        question_answering,
        sentence_folder,
    )
    from mobilebert_jax.interop import sentence_vector

    sentences = None
    if options.mode == "embed":
        sentences = sentence_folder.read(storage.path(options.model))
    pooling = sentence_vector.MEAN
    length = options.length
    if sentences is not None:
        length = length or sentences.length
        pooling = sentences.pooling
    if options.pool:
        # What the user says of the pool goes before what the folder says.
        pooling = pooling._replace(pool=options.pool)
    if pooling.pool not in sentence_vector.POOLS:
        raise InputError(
            f"--pool={options.pool!r} must be one of {', '.join(sentence_vector.POOLS)}"
        )
    model = load.open_model(options.model)
    module: Any = {
        "fill-mask": fill_mask,
        "classify": classify,
        "answer": question_answering,
        "embed": embed,
    }[options.mode]
    if model.kind not in module.KINDS:
        raise InputError(
            f"{options.model} is a network for {model.kind.replace('_', ' ')}, and {options.mode} "
            f"needs one for {' or '.join(kind.replace('_', ' ') for kind in module.KINDS)}"
        )
    ready = batching.scoring(model, options.model, options.batch_size, length)
    keywords: dict[str, Any] = {
        "fill-mask": {"top": options.top},
        "answer": {
            "top": options.top,
            "may_be_unanswerable": options.may_be_unanswerable,
            "max_answer_length": options.max_answer_length,
        },
        "embed": {"pooling": pooling},
    }.get(options.mode, {})
    return module.answerer(ready, **keywords), GROUP_BATCHES * ready.batch_size, ready.known


def _answered(answer: Answer, group: Sequence[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Yields items with their answers, those before a mistake too."""
    try:
        found = answer(group)
    except InputError:
        if len(group) == 1:
            raise
        half = len(group) // 2
        yield from _answered(answer, group[:half])
        yield from _answered(answer, group[half:])
        return
    yield from zip(group, found, strict=True)


def _line(item: Item, found: dict[str, Any]) -> str:
    given = {"id": item.fields["id"]} if "id" in item.fields else {}
    try:
        return json.dumps({**given, **found}, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise InputError(
            f"{item.where}: the answer, or the id given, holds a number that is infinite or none "
            "(NaN), which JSON has no place for"
        ) from None


def main(arguments: Sequence[str]) -> int:
    """Answers standard input and returns the exit code; answers to lines before a mistake stay.

    As a Unix filter: 0 done, 1 output cannot be written, 2 mistake in the input, 130 interrupted.
    """
    try:
        for name in ("stdin", "stdout"):
            if getattr(sys, name) is None:
                raise InputError(f"{name} is closed")
        options = parse(arguments)
        answer, at_once, known = _answerer(options)
        lines = items_lib.read(sys.stdin.buffer, "standard input")
        for group in items_lib.in_groups(lines, at_once):
            for item, found in _answered(answer, group):
                _write(_line(item, found) + "\n")
            _write("", flush=True)
        if known.unknown_share > Tokenizer.max_unknown_share:
            print(
                f"warning: the vocabulary does not know {known.unknown_share:.0%} of the tokens; "
                "is it of another language or case?",
                file=sys.stderr,
            )
    except InputError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return INPUT_ERROR_CODE
    except KeyboardInterrupt:
        _discard_output()
        return INTERRUPTED_CODE
    except BrokenPipeError:
        _discard_output()  # who reads has seen enough
    except _OutputError as error:
        _discard_output()
        print(f"error: standard output cannot be written: {error}", file=sys.stderr)
        return WRITE_ERROR_CODE
    except Exception as error:
        if not came_of_interrupt(error):
            raise
        _discard_output()
        return INTERRUPTED_CODE
    return 0


class _OutputError(Exception):
    """Standard output takes no more, as on a full disk."""


def _write(text: str, *, flush: bool = False) -> None:
    try:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _OutputError(error.strerror or str(error)) from None


def _discard_output() -> None:
    """Has what is still buffered go nowhere: Python would fail on it once more at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
