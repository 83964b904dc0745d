"""How fast is text prepared: on all cores, with one worker, and by BERT's tokenizer on one core?

    python -m benchmarks.preparation [--source python_docs] [--rounds 3] [--vocab BERT_VOCAB.txt]

Rounds alternate between them, so that other load on the machine meets all alike; the table shows
medians. A vocabulary is trained once beforehand, unless given: preparation is reading, splitting,
tokenising and writing, with the start of the processes. BERT's side is lenient: it only tokenises a
part of the text that already lies in memory.
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

from benchmarks.plain_tokenizer import PlainTokenizer
from mobilebert_jax.config import schema
from mobilebert_jax.data import corpus, prepare, prepare_unit, work_units, workers

PLAIN_BYTES = 2 << 20  # BERT's tokenizer takes two seconds for it
PLAIN = "BERT's own"


@dataclasses.dataclass(frozen=True)
class Round:
    """One way of preparing, its seconds of the clock, and megabytes of text."""

    way: str
    seconds: float
    megabytes: float

    @property
    def rate(self) -> float:
        """Megabytes a second."""
        return self.megabytes / self.seconds


def measure(data: schema.Data, vocab: Path, count: int, folder: Path) -> tuple[Round, str]:
    """Prepares `data` with `count` workers; returns the measurement and the records' digest."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        settings = schema.Tokenizer(path=str(vocab))
        start = time.perf_counter()
        manifest = prepare.prepare(data, settings, Path(out), count, _silent)
        seconds = time.perf_counter() - start
    splits = [split for source in manifest["sources"] for split in source["splits"].values()]
    megabytes = sum(s["bytes"] for s in splits) / 1e6
    return Round(_with(count), seconds, megabytes), manifest["digest"]


def sample(data: schema.Data, folder: Path) -> list[str]:
    """Returns lines from all parts of the first source."""
    planned = work_units.plan(
        corpus.parse_sources(data.source)[0], data.validation_fraction, folder, 0
    )
    units = work_units.limited(planned, PLAIN_BYTES)
    return [line for unit in units for line in prepare_unit.sample(unit)]


def measure_plain(lines: list[str], vocab: Path) -> Round:
    """Tokenises `lines` as BERT's preparation does, word by word in Python."""
    plain = PlainTokenizer(vocab)
    start = time.perf_counter()
    for line in lines:
        plain.ids(plain.tokenize(line))
    seconds = time.perf_counter() - start
    return Round(PLAIN, seconds, sum(len(line.encode()) for line in lines) / 1e6)


def train_vocabulary(data: schema.Data, folder: Path, count: int) -> tuple[Path, float]:
    """Trains the default vocabulary on `data`; returns its file and the seconds training took."""
    phases: dict[str, list[float]] = {}

    def note(phase: str, done: int, total: int) -> None:
        phases.setdefault(phase, []).append(time.perf_counter())

    prepare.prepare(data, schema.Tokenizer(), folder / "first", count, note)
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
    data = schema.Data(source=arguments.source, max_megabytes=arguments.max_megabytes)
    rounds: list[Round] = []
    digests = set()
    with tempfile.TemporaryDirectory() as name:
        folder, training = Path(name), None
        vocab = arguments.vocab
        if vocab is None:
            vocab, training = train_vocabulary(data, folder, cores)
        lines = sample(data, folder)
        for _ in range(arguments.rounds):
            rounds.append(measure_plain(lines, vocab))
            for count in dict.fromkeys((1, cores)):
                measured, digest = measure(data, vocab, count, folder)
                rounds.append(measured)
                digests.add(digest)
    if len(digests) != 1:
        raise SystemExit("the records differ between rounds or numbers of workers")
    report(arguments, rounds, training)


def report(arguments: argparse.Namespace, rounds: list[Round], training: float | None) -> None:
    """Prints the table of medians and writes it with every round as JSON."""
    ways = list(dict.fromkeys(r.way for r in rounds))
    medians = {way: statistics.median(r.rate for r in rounds if r.way == way) for way in ways}
    text = max(r.megabytes for r in rounds)
    print(f"{arguments.source}: {text:.1f} MB of text, {arguments.rounds} rounds")
    print(f"{'':>12} {'MB/s':>8} {'times BERT':>10} {'lowest':>8} {'highest':>8}")
    for way, median in medians.items():
        rates = [r.rate for r in rounds if r.way == way]
        print(
            f"{way:>12} {median:>8.2f} {median / medians[PLAIN]:>10.2f} "
            f"{min(rates):>8.2f} {max(rates):>8.2f}"
        )
    if training is not None:
        print(f"training the vocabulary took {training:.1f} s")
    content = {
        "source": arguments.source,
        "machine": {"cores": workers.available_cores(), "python": platform.python_version()},
        "megabytes": text,
        "training_seconds": training,
        "median_rates": medians,
        "rounds": [dataclasses.asdict(r) for r in rounds],
    }
    arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {arguments.json}")


def _with(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


def _silent(phase: str, done: int, total: int) -> None:
    """Shows nothing: printing would be part of what is measured."""


if __name__ == "__main__":
    main()
