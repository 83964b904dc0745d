"""How many pretraining examples a second does one core make, and is that enough for a step?

    python -m benchmarks.feed [--records runs/NAME/prepare-DIGEST/records]
      [--step_ms 35 --batch 256] [--out feed.json]

The documents are synthetic and in memory: what is measured is pairing, masking, shuffling and
batching, not the disk. With `--records` they are those of a prepared corpus, and reading counts.
The rate is per second of processor time, so that a machine busy with other things measures the
same; the median of several rounds is reported, with the slowest and fastest.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config import schema
from mobilebert_jax.data import prepare
from mobilebert_jax.data.feed import Feed
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.data.pretraining import Documents

VOCABULARY_SIZE = 30_522
LENGTHS = (128, 512)
BATCH_SIZE = 256


class SyntheticDocuments:
    """Random documents whose lengths, about 20 tokens a sentence, are spread like Wikipedia's."""

    weight = 1.0

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        sentences = np.clip(rng.lognormal(3.0, 1.0, count), 1, 400).astype(int)
        self._lengths = [1 + rng.poisson(20, n).astype(np.int32) for n in sentences]
        self.token_counts = np.array([lengths.sum() for lengths in self._lengths], np.int64)
        self.document_numbers = np.arange(len(self.token_counts))
        self._tokens = [
            rng.integers(5, VOCABULARY_SIZE, n, dtype=np.int32) for n in self.token_counts
        ]

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return self._tokens[index], self._lengths[index]


def vocabulary() -> Vocabulary:
    """Returns a vocabulary in which, as in BERT's, about a fifth of the pieces continue a word."""
    starts_word_V = np.random.default_rng(0).random(VOCABULARY_SIZE) < 0.8
    ordinary = np.arange(5, VOCABULARY_SIZE, dtype=np.int32)
    return Vocabulary(0, 2, 3, 4, ordinary=ordinary, starts_word_V=starts_word_V)


def rates(feed: Feed, rounds: int, batches: int) -> list[float]:
    """Returns the examples per second of processor time in each of `rounds`."""
    feed[0]
    found = []
    for number in range(rounds):
        began = time.process_time()
        for step in range(batches):
            feed[1 + number * batches + step]
        found.append(batches * BATCH_SIZE / (time.process_time() - began))
    return found


def measure(
    documents: Sequence[Documents], pieces: Vocabulary, rounds: int, batches: int
) -> list[dict]:
    """Returns one row for each setting of length and whole-word masking."""
    rows = []
    for length in LENGTHS:
        for whole_word_mask in (False, True):
            predictions = round(0.15 * length) + 1
            data = schema.Data(
                max_seq_length=length,
                max_predictions_per_seq=predictions,
                whole_word_mask=whole_word_mask,
            )
            feed = Feed(documents, pieces, data, batch_size=BATCH_SIZE, seed=0)
            found = rates(feed, rounds, batches)
            rows.append(
                {
                    "length": length,
                    "whole_word_mask": whole_word_mask,
                    "examples_per_core_second": round(statistics.median(found)),
                    "slowest": round(min(found)),
                    "fastest": round(max(found)),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=8, help=f"a round, {BATCH_SIZE} rows each")
    parser.add_argument("--records", type=Path, help="folder of a prepared corpus")
    parser.add_argument("--step_ms", type=float, help="time of a training step")
    parser.add_argument("--batch", type=int, help="examples of a step made by this machine")
    parser.add_argument("--out", type=Path, default=Path("feed.json"))
    args = parser.parse_args()
    if (args.step_ms is None) != (args.batch is None):
        parser.error("--step_ms and --batch belong together")

    documents: Sequence[Documents] = [SyntheticDocuments(5_000, seed=0)]
    pieces = vocabulary()
    if args.records:
        documents = prepare.open_documents(args.records, "train")
        pieces = Vocabulary.of(prepare.load_tokenizer(args.records))
    rows = measure(documents, pieces, args.rounds, args.batches)
    print("length  whole words  examples/s per core  (slowest to fastest)", end="")
    print("  share of a core" if args.batch else "")
    for row in rows:
        line = f"{row['length']:6}  {row['whole_word_mask']!s:>11}"
        line += f"  {row['examples_per_core_second']:19}"
        line += f"  {row['slowest']:8} to {row['fastest']:7}"
        if args.batch:
            needed = args.batch / (args.step_ms / 1000)
            row["share_of_a_core"] = round(needed / row["examples_per_core_second"], 3)
            line += f"  {row['share_of_a_core']:16.1%}"
        print(line)
    machine = {"python": platform.python_version(), "numpy": np.__version__}
    report = {"machine": machine, "step_ms": args.step_ms, "batch": args.batch, "rows": rows}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
