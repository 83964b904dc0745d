"""Whether a file that was written computes what our network does, asked before it gets its name.

Shapes: N examples, T positions.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import atomic
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.interop import forward
from mobilebert_jax.interop.forward import Inputs
from mobilebert_jax.interop.model import Model
from mobilebert_jax.interop.sentence_vector import Pooling

TOLERANCE = 1e-4
"""Largest accepted difference of a float32 file, as a share of the output's largest magnitude:
ten times what the order of sums was seen to change, and a thousandth of what any mistake does."""

SENTENCES = (
    ("Which river runs through the old town?", "The Danube divides Ulm from its southern suburb."),
    ("The second half was far better than the first.", ""),
    ("Did she really say that the museum opens at nine?", "It opens at ten, except on Mondays."),
    ("No.", ""),
    ("Water boils at a lower temperature on a mountain.", "Eggs take longer to cook up there."),
    (
        "When the last train had left, the porter locked the waiting room, hung the lamp on its "
        "nail beside the timetable and walked home along the canal, counting the lighted windows.",
        "",
    ),
)
"""What is compared where the network has a tokenizer; the second of a pair may be empty."""

Runner = Callable[[Inputs], dict[str, np.ndarray]]


class Difference(NamedTuple):
    """Between ours and theirs, over all compared values of one output."""

    max_abs: float
    max_rel: float
    """As a share of the largest magnitude of ours."""


class Verified(NamedTuple):
    """A file that was written, read back and run."""

    path: Path
    bytes: int
    differences: dict[str, Difference]
    """By output. Where outputs belong to tokens, padding is not compared: nobody reads it."""
    examples: int
    float_operations: dict[str, int] = {}  # noqa: RUF012
    """Of a full-integer file: what is still computed in float32, and how often."""


def package(name: str) -> ModuleType:
    """Returns an optional module; raises InputError saying how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"this export needs the package {name.partition('.')[0]} ({error}); install it with "
            ".venv/bin/python -m pip install --no-deps -r requirements-export.txt"
        ) from error


def examples(model: Model, length: int) -> Inputs:
    """Returns `SENTENCES` as the network reads them, or random ids where it has no tokenizer."""
    if model.tokenizer is None:
        found = _random(model, length)
    else:
        found = encode(model.tokenizer, SENTENCES, length)
    # A network with one type of segment has no vector for the second text.
    segments_NT = np.minimum(found.segment_ids_NT, model.config.type_vocab_size - 1)
    return found._replace(segment_ids_NT=segments_NT)


def _random(model: Model, length: int) -> Inputs:
    generator = np.random.default_rng(0)
    lengths_N = np.linspace(min(3, length), length, len(SENTENCES)).astype(int)
    mask_NT = (np.arange(length) < lengths_N[:, None]).astype(np.int32)
    ids_NT = generator.integers(0, model.config.vocab_size, mask_NT.shape).astype(np.int32)
    second_NT = np.arange(length) >= lengths_N[:, None] // 2
    return Inputs(ids_NT * mask_NT, mask_NT, (second_NT * mask_NT).astype(np.int32))


def encode(tokenizer: Tokenizer, pairs: tuple[tuple[str, str], ...], length: int) -> Inputs:
    """Returns [CLS] first [SEP] second [SEP] of each pair, padded or cut to `length`."""
    arrays = Inputs(*(np.zeros((len(pairs), length), np.int32) for _ in forward.INPUTS))
    arrays.input_ids_NT[:] = tokenizer.pad
    firsts, seconds = (tokenizer.encode(texts) for texts in zip(*pairs, strict=True))
    for row, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        ids = [tokenizer.cls, *first, tokenizer.sep]
        segments = [0] * len(ids)
        if second:
            ids += [*second, tokenizer.sep]
            segments += [1] * (len(second) + 1)
        stop = min(len(ids), length)
        arrays.input_ids_NT[row, :stop] = ids[:stop]
        arrays.segment_ids_NT[row, :stop] = segments[:stop]
        arrays.input_mask_NT[row, :stop] = 1
    return arrays


def ours(
    model: Model,
    inputs: Inputs,
    *,
    mask: forward.Mask = "additive",
    pooling: Pooling | None = None,
) -> dict[str, np.ndarray]:
    """Returns our outputs by name; `mask` and `pooling` as in `forward.function`."""
    function = forward.function(model, mask=mask, pooling=pooling)
    # On an accelerator the default precision of a float32 matmul would exceed the tolerance.
    with jax.default_matmul_precision("highest"):
        found = jax.jit(function)(*map(jax.numpy.asarray, inputs))
    return {name: np.asarray(array) for name, array in found.items()}


def publish(
    model: Model,
    path: Path,
    content: bytes,
    run: Callable[[Path], Runner],
    *,
    inputs: Inputs,
    mask: forward.Mask = "additive",
    pooling: Pooling | None = None,
    tolerance: float | None = TOLERANCE,
) -> Verified:
    """Writes the file, runs it, compares it with ours, and only then gives it its name.

    Args:
      model: the network that the file was made of.
      path: where the file goes; one that is there is replaced.
      content: what is written.
      run: makes of a file's path a function that runs it.
      inputs: the examples that both run.
      mask: how our network hides padding.
      pooling: how our network makes one vector of a text, where the file does.
      tolerance: as `TOLERANCE`; None reports the differences whatever they are.

    Raises InputError where an output is not finite or differs by more than the tolerance.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = atomic.temporary(path)
    try:
        temporary.write_bytes(content)
        theirs = run(temporary)(inputs)
        found = differences(ours(model, inputs, mask=mask, pooling=pooling), theirs, inputs)
        _check(path, found, tolerance)
        atomic.publish(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Verified(path, len(content), found, len(inputs.input_ids_NT))


def differences(
    mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray], inputs: Inputs
) -> dict[str, Difference]:
    """Returns by output how far theirs are from ours; NaN where either is not finite.

    Raises InputError where names or shapes differ.
    """
    shapes, others = ({n: a.shape for n, a in x.items()} for x in (mine, theirs))
    if shapes != others:
        raise InputError(f"the file's outputs are {others}; they must be {shapes}")
    real_NT = inputs.input_mask_NT.astype(bool)
    found = {}
    for name, array in mine.items():
        other: Any = theirs[name]
        if array.shape[:2] == real_NT.shape:
            array, other = array[real_NT], other[real_NT]
        largest = float(np.abs(array - other).max())
        magnitude = float(np.abs(array).max())
        found[name] = Difference(largest, largest / magnitude if magnitude else largest)
    return found


def _check(path: Path, found: dict[str, Difference], tolerance: float | None) -> None:
    for name, difference in found.items():
        if not np.isfinite(difference.max_rel):
            raise InputError(f"{path} was not written: its output {name} is not finite")
        if tolerance is not None and difference.max_rel > tolerance:
            raise InputError(
                f"{path} was not written: its output {name} differs from ours by "
                f"{difference.max_rel:.1e} of the largest value; allowed is {tolerance:.0e}"
            )
