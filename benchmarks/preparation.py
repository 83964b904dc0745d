"""How fast is text prepared, on all cores against one worker?

    python benchmarks/preparation.py [--source python_docs] [--rounds 3] [--vocab BERT_VOCAB.txt]

Rounds alternate between the two, so that other load on the machine meets both alike; the table
shows medians. A vocabulary is trained once beforehand, unless given: the rounds measure reading,
splitting, tokenising and writing, with the start of the processes.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from mobilebert_jax import config
from mobilebert_jax.data import records, workers


@dataclasses.dataclass(frozen=True)
class Round:
    """One preparation: its worker processes, seconds of the clock, and megabytes of text."""

    workers: int
    seconds: float
    megabytes: float

    @property
    def rate(self) -> float:
        """Megabytes a second."""
        return self.megabytes / self.seconds


def measure(data: config.Data, vocab: Path, count: int, folder: Path) -> tuple[Round, str]:
    """Prepares `data` with `count` workers; returns the measurement and the records' digest."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        settings = config.Tokenizer(path=str(vocab))
        start = time.perf_counter()
        manifest = records.prepare(data, settings, Path(out), count, _silent, folder / "cache.json")
        seconds = time.perf_counter() - start
    splits = [split for source in manifest["sources"] for split in source["splits"].values()]
    return Round(count, seconds, sum(s["bytes"] for s in splits) / 1e6), manifest["digest"]


def train_vocabulary(data: config.Data, folder: Path, count: int) -> tuple[Path, float]:
    """Trains the default vocabulary on `data`; returns its file and the seconds training took."""
    phases: dict[str, list[float]] = {}

    def note(phase: str, done: int, total: int) -> None:
        phases.setdefault(phase, []).append(time.perf_counter())

    records.prepare(data, config.Tokenizer(), folder / "first", count, note, folder / "cache.json")
    start, end = phases["training tokenizer"]
    return folder / "first" / "tokenizer" / "vocab.txt", end - start


def main() -> None:
    """Runs the rounds, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--source", default="python_docs", help="as in data.source")
    parser.add_argument("--vocab", type=Path, help="a vocab.txt instead of a trained one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_megabytes", type=int, default=0, help="text read; 0 reads all")
    parser.add_argument("--json", type=Path, default=Path("preparation.json"))
    arguments = parser.parse_args()
    # One worker must be one core: the tokenizer library would otherwise start threads of its own.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    cores = workers.available_cores()
    data = config.Data(source=arguments.source, max_megabytes=arguments.max_megabytes)
    rounds: list[Round] = []
    digests = set()
    with tempfile.TemporaryDirectory() as name:
        folder, training = Path(name), None
        vocab = arguments.vocab
        if vocab is None:
            vocab, training = train_vocabulary(data, folder, cores)
        for _ in range(arguments.rounds):
            for count in dict.fromkeys((1, cores)):
                measured, digest = measure(data, vocab, count, folder)
                rounds.append(measured)
                digests.add(digest)
    if len(digests) != 1:
        raise SystemExit("the records differ between rounds or numbers of workers")
    report(arguments, rounds, training)


def report(arguments: argparse.Namespace, rounds: list[Round], training: float | None) -> None:
    """Prints the table of medians and writes it with every round as JSON."""
    medians = {
        count: statistics.median(r.rate for r in rounds if r.workers == count)
        for count in dict.fromkeys(r.workers for r in rounds)
    }
    print(f"{arguments.source}: {rounds[0].megabytes:.1f} MB of text, {arguments.rounds} rounds")
    print(f"{'workers':>8} {'MB/s':>8} {'times one':>10} {'lowest':>8} {'highest':>8}")
    for count, median in medians.items():
        rates = [r.rate for r in rounds if r.workers == count]
        print(
            f"{count:>8} {median:>8.2f} {median / medians[1]:>10.2f} "
            f"{min(rates):>8.2f} {max(rates):>8.2f}"
        )
    if training is not None:
        print(f"training the vocabulary took {training:.1f} s")
    content = {
        "source": arguments.source,
        "machine": {"cores": workers.available_cores(), "python": platform.python_version()},
        "megabytes": rounds[0].megabytes,
        "training_seconds": training,
        "median_rates": {str(count): median for count, median in medians.items()},
        "rounds": [dataclasses.asdict(r) for r in rounds],
    }
    arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {arguments.json}")


def _silent(phase: str, done: int, total: int) -> None:
    """Shows nothing: printing would be part of what is measured."""


if __name__ == "__main__":
    main()
