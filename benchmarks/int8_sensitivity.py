"""Which part of a network loses what in a full-integer LiteRT file?

    launch/test.sh --all                         # makes .venv-parity, once
    .venv-parity/bin/python -m benchmarks.int8_sensitivity --model runs/NAME/trials/TRIAL \\
      --calibration train.tsv --rows held_out.tsv --text sentence --table parts

The network is a fine-tuned classifier; both files are tables as `experiments/classify.py` reads.
Ranges come from the first rows of `--calibration`. Rows of `--rows` with at least `--least_words`
words are run, which should have been seen neither in training nor in calibration. Each line of a
table is a file that was quantised and run:

    parts   each part alone in 8 bits, and each alone in float32
    blocks  the same of each block
    files   the other kinds of files in 8 bits, the default, and what --float_parts names (`+`
            between parts)

The error is the mean over rows of how far the widest logit is off, in logits; where that is small
against the spread of the logits, few answers change. Behind it stand the answers that differ from
float32's, and the share of right ones less float32's, in points. Brackets are 95 % intervals of a
bootstrap over rows; p is McNemar's exact test of answers that only one of the two has right.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats

from mobilebert_jax.config.finetune import Files
from mobilebert_jax.config.schema import INT8_DEFAULT, INT8_PARTS
from mobilebert_jax.export import subjects
from mobilebert_jax.finetune.classification import files as table_files
from mobilebert_jax.finetune.features import of_sentences
from mobilebert_jax.inference.load import open_model
from mobilebert_jax.interop import forward, verification
from mobilebert_jax.interop.forward import Inputs, Mask
from mobilebert_jax.interop.litert import model as litert
from mobilebert_jax.interop.litert import parts, quantization
from mobilebert_jax.interop.model import Model
from mobilebert_jax.model.sizes import ModelConfig

RESAMPLES = 2000
ROWS_AT_ONCE = 50


class Table(NamedTuple):
    """Rows to run, with their classes."""

    inputs: Inputs
    classes_N: np.ndarray


class Compared(NamedTuple):
    """A file's logits beside those of float32."""

    error: float
    error_interval: tuple[float, float]
    changed: int
    points: float
    points_interval: tuple[float, float]
    p: float


def compare(theirs_NC: np.ndarray, ours_NC: np.ndarray, classes_N: np.ndarray) -> Compared:
    """Returns how far `theirs_NC` are from `ours_NC`."""
    error_N = np.abs(theirs_NC - ours_NC).max(axis=1).astype(np.float64)
    right = [logits_NC.argmax(axis=1) == classes_N for logits_NC in (theirs_NC, ours_NC)]
    gain_N = 100.0 * (right[0].astype(float) - right[1])
    better, worse = int((gain_N > 0).sum()), int((gain_N < 0).sum())
    p = scipy.stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    changed = int((theirs_NC.argmax(axis=1) != ours_NC.argmax(axis=1)).sum())
    errors, gains = interval(error_N), interval(gain_N)
    return Compared(float(error_N.mean()), errors, changed, float(gain_N.mean()), gains, float(p))


def interval(x_N: np.ndarray) -> tuple[float, float]:
    """Returns the bounds of 95 % for the mean, by a bootstrap over rows."""
    found = scipy.stats.bootstrap(
        (x_N,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def read(model: Model, options: argparse.Namespace) -> tuple[Inputs, Table]:
    """Returns the rows of calibration, and those that are run."""
    data = table_files.read(
        Files(
            train=str(options.calibration),
            dev=str(options.rows),
            text=options.text,
            label=options.label,
        )
    )
    tokenizer = model.tokenizer
    assert tokenizer is not None
    long = [e for e in data.dev["dev"] if len(e.first.split()) >= options.least_words]
    chosen = data.train[: options.calibration_rows], long[: options.count]
    calibration, rows = (
        of_sentences(examples, tokenizer, options.length, number=False)[0] for examples in chosen
    )

    def padded(rows: Any) -> Inputs:
        return subjects.inputs_of(rows, range(len(rows)), options.length, tokenizer.pad)

    return padded(calibration), Table(padded(rows), rows.targets["labels"])


def logits_of(model: Model, inputs: Inputs, mask: Mask = "additive") -> np.ndarray:
    """Returns the network's own logits [N, C] in float32."""
    function = jax.jit(forward.function(model, mask=mask))
    made = [
        function(*inputs.rows(start, start + ROWS_AT_ONCE))["logits"]
        for start in range(0, len(inputs.input_ids_NT), ROWS_AT_ONCE)
    ]
    return np.concatenate([np.asarray(logits) for logits in made])


def run(content: bytes, inputs: Inputs) -> np.ndarray:
    """Returns the logits [N, C] of a file."""
    module = verification.package("ai_edge_litert.interpreter")
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(content)
        file.flush()
        interpreter = module.Interpreter(model_path=file.name, num_threads=os.cpu_count())
        signature = interpreter.get_signature_runner(quantization.SIGNATURE)
        return np.concatenate([signature(**r)["logits"] for r in quantization.rows_of(inputs)])


def by_part(config: ModelConfig) -> Iterator[tuple[str, list[str]]]:
    """Yields a file's name, and the names of the operations that are float32 in it."""
    absent = {"norms"} if config.normalization_type == "layer_norm" else set()
    absent |= set() if config.use_bottleneck else {"bottlenecks"}
    names = {part: parts.names_of(part) for part in INT8_PARTS if part not in absent}
    for part in names:
        yield f"only {part}", [names[other] for other in names if other != part]
    for part in names:
        yield f"all but {part}", [names[part]]


def by_block(config: ModelConfig) -> Iterator[tuple[str, list[str]]]:
    """The same of blocks."""
    blocks = range(config.num_hidden_layers)
    outside = [parts.names_of(part) for part in ("embeddings", "head")]
    for block in blocks:
        others = [parts.names_of_block(other) for other in blocks if other != block]
        yield f"only block {block}", outside + others
    for block in blocks:
        yield f"all but block {block}", [parts.names_of_block(block)]


def by_choice(config: ModelConfig, choices: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The default, and each choice of parts with `+` between them."""
    for choice in (INT8_DEFAULT, *choices):
        yield choice, [parts.names_of(part) for part in parts.chosen(config, choice.split("+"))]


def show(name: str, megabytes: float, found: Compared) -> None:
    low, high = found.error_interval
    least, most = found.points_interval
    print(
        f"{name:<34}{megabytes:>6.1f}  {found.error:.4f} [{low:.4f}, {high:.4f}]{found.changed:>5}"
        f"  {found.points:+.2f} [{least:+.2f}, {most:+.2f}]  p={found.p:.2f}",
        flush=True,
    )


def files_of(
    model: Model, calibration: Inputs, options: argparse.Namespace
) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of every file of the table."""
    if options.table == "files":
        plain = litert.converted(model, options.length, mask="additive")
        yield "weight_int8", quantization.weights_in_8_bits(plain, floating=True)
        yield "dynamic_int8", quantization.weights_in_8_bits(plain, floating=False)
    clipped = litert.converted(model, options.length, mask="clipped")
    calibrated = quantization.calibrated(clipped, calibration)
    lines = {
        "parts": by_part(model.config),
        "blocks": by_block(model.config),
        "files": by_choice(model.config, options.float_parts),
    }[options.table]
    every = [parts.names_of(part) for part in INT8_PARTS]
    for name, floating in (("all in 8 bits", []), ("no part in 8 bits", every), *lines):
        yield name, quantization.all_in_8_bits(model.config, calibrated, floating)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--text", default="text", help="the column of texts")
    parser.add_argument("--label", default="label", help="the column of classes")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--calibration_rows", type=int, default=100)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--least_words", type=int, default=1)
    parser.add_argument("--table", choices=("parts", "blocks", "files"), default="parts")
    parser.add_argument("--float_parts", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = open_model(options.model)
    calibration, table = read(model, options)
    mine_NC = logits_of(model, table.inputs)
    right = 100.0 * (mine_NC.argmax(axis=1) == table.classes_N).mean()
    spread = mine_NC.std()
    print(f"{len(mine_NC)} rows, float32: {right:.2f} % right, logits' deviation {spread:.3f}")
    clipped_NC = logits_of(model, table.inputs, "clipped")
    results = {"float32, padding at -6": compare(clipped_NC, mine_NC, table.classes_N)}
    show("float32, padding at -6", 0.0, results["float32, padding at -6"])
    for name, content in files_of(model, calibration, options):
        results[name] = compare(run(content, table.inputs), mine_NC, table.classes_N)
        show(name, len(content) / 1e6, results[name])
    if options.out:
        named = {name: found._asdict() for name, found in results.items()}
        options.out.write_text(json.dumps(named, indent=1) + "\n")


if __name__ == "__main__":
    main()
