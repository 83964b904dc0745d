"""One network in one format: written into a folder, and what was found when it was run."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mobilebert_jax.config.schema import FOLDER_FORMATS, INT8_DEFAULT, InputError
from mobilebert_jax.export import scores
from mobilebert_jax.export.subjects import Subject, as_encoder
from mobilebert_jax.interop import onnx as onnx_format
from mobilebert_jax.interop import own_format, stablehlo, verification
from mobilebert_jax.interop.forward import Mask
from mobilebert_jax.interop.huggingface import model as huggingface
from mobilebert_jax.interop.huggingface import tokenizer as tokenizer_files
from mobilebert_jax.interop.litert import apps, metadata, parts
from mobilebert_jax.interop.litert import model as litert
from mobilebert_jax.interop.verification import Runner, Verified


class Format(NamedTuple):
    """The format's own name, and the packages that writing and running it takes."""

    title: str
    packages: tuple[str, ...]


LITERT = "litert_"
"""How the names of LiteRT's formats begin, before the mode."""

FORMATS = {
    "huggingface": Format("Hugging Face folder", ()),
    "mobilebert_jax": Format("this project's safetensors folder", ()),
    "litert_float32": Format("LiteRT, float32", ("litert_converter", "ai_edge_litert")),
    "litert_weight_int8": Format(
        "LiteRT, int8 weights", ("litert_converter", "ai_edge_litert", "ai_edge_quantizer")
    ),
    "litert_dynamic_int8": Format(
        "LiteRT, int8 weights, activations rounded as they come",
        ("litert_converter", "ai_edge_litert", "ai_edge_quantizer"),
    ),
    "litert_int8": Format(
        "LiteRT, full integer int8", ("litert_converter", "ai_edge_litert", "ai_edge_quantizer")
    ),
    "onnx": Format("ONNX", ("onnx", "onnxruntime")),
    "stablehlo": Format("StableHLO (jax.export)", ("flatbuffers",)),
}

_FLOAT_ONLY = (
    "This network was trained to be computed in 8 bits, its attention scores clipped to [-6, 60] "
    "and those of padding -6. What reads this folder computes in float32 and hides padding "
    "completely, so outputs differ a little from those of its training."
)


def missing(name: str) -> list[str]:
    """Returns the packages that a format takes and this environment lacks."""
    return [p for p in FORMATS[name].packages if importlib.util.find_spec(p) is None]


def check(name: str, subject: Subject) -> None:
    """Raises InputError for what keeps `subject` from this format and is known before it is
    written: a package that is missing, a network that cannot be expressed, no calibration rows."""
    for package in missing(name):
        verification.package(package)
    if name == "huggingface":
        huggingface.check(subject.model, subject.folder)
    if name == "litert_int8" and subject.calibration is None:
        raise InputError(
            f"{subject.folder} cannot become a full-integer file alone: its ranges take examples "
            "of what it reads. A trial has them where finetune.source or finetune.files names its "
            "data, and a run's own stage 'export' has those of 'prepare'; export it so, or leave "
            "litert_int8 out of export.formats"
        )


def write(
    name: str, subject: Subject, folder: Path, int8_float_parts: tuple[str, ...] = (INT8_DEFAULT,)
) -> dict[str, Any]:
    """Writes `subject` into `folder` and returns what there is to say of the result.

    `int8_float_parts` is `Export.int8_float_parts`.

    Raises InputError as `check`, and for a file that does not compute what the network does.
    """
    check(name, subject)
    if name in FOLDER_FORMATS:
        notes = [_FLOAT_ONLY] if subject.quantized else []
        if name == "huggingface":
            notes += huggingface.write(subject.model, folder / name)
        else:
            own_format.write(subject.model, folder / name)
        return {"format": name, "file": name, "bytes": _size(folder / name), "notes": notes}
    path, verified, runner = _program(name, subject, folder, int8_float_parts)
    fit = _fit(name, subject)
    result: dict[str, Any] = {
        "format": name,
        "file": path.name,
        "bytes": verified.bytes,
        "notes": _about_apps(path.name, fit) if fit is not None else [],
        "length": subject.length,
        "examples": verified.examples,
        "differences": {
            output: {"max_abs": found.max_abs, "max_rel": found.max_rel}
            for output, found in verified.differences.items()
        },
    }
    if fit is not None:
        result["app"] = fit._asdict()
    if name == "litert_int8":
        floating = parts.chosen(subject.model.config, int8_float_parts)
        result["notes"].append(
            f"`{path.name}` computes {', '.join(floating) or 'no more than it must'} in float32."
        )
    if verified.float_operations:
        result["float_operations"] = verified.float_operations
    if subject.task is not None and subject.trial is not None:
        pad = subject.trial.tokenizer.pad
        result["metrics"] = scores.score(subject.task, runner(path), pad)
    return result


def _program(
    name: str, subject: Subject, folder: Path, int8_float_parts: tuple[str, ...]
) -> tuple[Path, Verified, Callable[[Path], Runner]]:
    model, length = as_encoder(subject.model), subject.length
    mask: Mask = "clipped" if subject.quantized else "additive"
    if name == "onnx":
        path = folder / "model.onnx"
        return path, onnx_format.export(model, path, mask=mask), onnx_format.runner
    if name == "stablehlo":
        path = folder / "model.stablehlo"
        return path, stablehlo.export(model, path, mask=mask), stablehlo.runner
    mode: Any = name.removeprefix(LITERT)
    path = folder / f"model_{mode}.tflite"
    fit = _fit(name, subject)
    verified = litert.export(
        model,
        path,
        length=length,
        mode=mode,
        calibration=subject.calibration,
        mask=mask,
        pooling=subject.pooling,
        for_apps=fit is not None and bool(fit.task),
        float_parts=int8_float_parts,
    )
    return path, verified, litert.runner


def _fit(name: str, subject: Subject) -> apps.Fit | None:
    """Returns which app reads a LiteRT file, None of another format."""
    if not name.startswith(LITERT):
        return None
    model, mode = as_encoder(subject.model), name.removeprefix(LITERT)
    return apps.fit(model, subject.length, mode, pairs=subject.reads_pairs)


def _about_apps(file: str, fit: apps.Fit) -> list[str]:
    if not fit.task:
        return [f"`{file}` holds no metadata, so that apps' tasks refuse it: {fit.obstacle}."]
    return [f"`{file}` opens in {fit.task} as it is.", apps.SPLITTING]


def write_beside(subject: Subject, folder: Path) -> list[str]:
    """Writes vocabulary and labels into `folder`, for what runs the programs there; returns what a
    user of them should know."""
    model = subject.model
    names = apps.labels(model) if model.kind != "token_classification" else model.labels
    said, notes = [], []
    if model.tokenizer is not None:
        positions = model.config.max_position_embeddings
        notes = tokenizer_files.write(model.tokenizer, folder, "bert", positions)
        said.append("the tokenizer's files are as `transformers` keeps them")
    if names:
        # One line a label, whatever is in it.
        lines = "".join(f"{' '.join(name.splitlines())}\n" for name in names)
        (folder / metadata.LABELS).write_text(lines, encoding="utf-8")
        said.append(f"`{metadata.LABELS}` has the labels in the order of the outputs")
    return [f"Beside the programs, {' and '.join(said)}.", *notes] if said else []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
