"""The configuration: frozen dataclasses, and the one door between them and `ml_collections`.

An experiment file builds a `Config`; `to_config_dict` turns it into the `ConfigDict` that the
command line can override; `from_config_dict` turns the result back and checks it. Inside the
package only the typed form exists.

The configuration has two halves. Everything except `execution` is *science*: it changes numbers and
is part of the digest of whatever is made from it. `execution` says how the machine is used and must
not change numbers beyond float tolerance. This file must not import jax: reading a configuration
and reporting a mistake in it should take a fraction of a second.
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import ml_collections

from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig

STAGES = ("prepare", "teacher", "transfer", "distill", "twin", "evaluate")


class InputError(Exception):
    """A mistake in the configuration or in the input files; `main` prints it and exits with 2."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Text, and how pretraining examples are cut from it (paper section 4.2; BERT's recipe)."""

    source: str = "python_docs"
    """Where documents come from: `python_docs`, `text:GLOB`, `wikiextractor:GLOB`,
    `jsonl:GLOB[#FIELD]` or `tfds:NAME[#FIELD]`; several as `0.7 text:a/*.txt + 0.3 python_docs`."""
    prepared: str = ""
    """A finished folder of records to use instead of preparing `source`."""
    held_out: float = 0.02
    """Share of documents kept from training, chosen by a hash of their text."""
    max_megabytes: int = 0
    """Stop reading a source after this much text; 0 reads all."""
    length: int = 128
    """Tokens of one example, special tokens included (S)."""
    max_predictions: int = 20
    """Most positions predicted in one example (P)."""
    mask_rate: float = 0.15
    short_rate: float = 0.1
    """Share of examples cut to a random shorter length."""
    whole_words: bool = False
    """Mask all pieces of a word together."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """The vocabulary: trained on the corpus, or loaded when `path` is given."""

    kind: Literal["wordpiece", "sentencepiece_unigram", "sentencepiece_bpe"] = "wordpiece"
    path: str = ""
    """A `vocab.txt` or a SentencePiece `.model` to load instead of training."""
    vocab_size: int = 4096
    lowercase: bool = True
    train_megabytes: int = 16
    """Text that training reads at most."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Update rule and its rate over time (paper section 4.3)."""

    kind: Literal["lamb", "adamw"] = "lamb"
    peak_rate: float = 1.5e-3
    warmup_steps: int = 10_000
    decay: Literal["linear", "constant"] = "linear"
    final_rate: float = 1e-4
    """Rate at the last step as a share of the peak, for linear decay."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    bias_correction: bool = False


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Pretraining of the IB-BERT teacher on masked-LM and next-sentence prediction."""

    path: str = ""
    """The finished teacher stage of another run to use instead of training one."""
    model: ModelConfig = sizes.IB_BERT_LARGE
    steps: int = 500_000
    batch_size: int = 4096
    optimizer: Optimizer = Optimizer()


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Layer-wise knowledge transfer from teacher to student (paper sections 3.4 and 3.5)."""

    strategy: Literal["progressive", "joint", "auxiliary", "none"] = "progressive"
    """`progressive` teaches one layer at a time, `joint` all layers at once, both before
    distillation; `auxiliary` adds the transfer losses to distillation instead."""
    steps: int = 240_000
    """Steps over all layers together."""
    batch_size: int = 2048
    lower_rate: float = 0.1
    """Rate of the layers below the active one, as a share of its own; 0 freezes them."""
    feature_map: float = 100.0
    mean: float = 5000.0
    variance: float = 5.0
    attention: float = 1.0
    average_layers: bool = False
    """Divide the losses by the number of layers, as the authors' code does; clipping sees it."""
    all_teacher_statistics: bool = False
    """Compare each student layer's mean and variance with those of every teacher feature map, as
    the authors' code does, instead of with its own layer's."""
    optimizer: Optimizer = Optimizer(warmup_steps=0, decay="constant")
    """Under `progressive` the rate is shaped within each layer's phase, see optimizer/rates.py."""


@dataclasses.dataclass(frozen=True)
class Distill:
    """Pretraining distillation of the student (paper section 3.4, last part)."""

    steps: int = 500_000
    batch_size: int = 2048
    alpha: float = 0.5
    """Share of the hard-label masked-LM loss; the teacher's distribution has the rest."""
    temperature: float = 1.0
    optimizer: Optimizer = Optimizer()


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measurement on held-out documents."""

    examples: int = 1024
    batch_size: int = 64
    sentence: str = "This method returns a new [MASK] with the given name."
    """The fill-mask sentence of the report; the tokenizer's own mask token may be written too."""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices along each axis; -1 takes what is left."""

    data: int = -1
    fsdp: int = 1
    model: int = 1


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the machine is used; nothing here may change a number beyond float tolerance."""

    runs_dir: str = "runs"
    mesh: Mesh = Mesh()
    micro_batches: int = 1
    """Parts in which a batch passes through the network; gradients are summed."""
    remat: Literal["none", "dots", "full"] = "none"
    """What a block keeps for its backward pass: everything, matrix products only, or nothing."""
    workers: int = 0
    """Processes that prepare text; 0 takes one a core."""
    prefetch: int = 4
    """Batches made ahead of the step that needs them."""
    log_every: int = 20
    eval_every: int = 0
    """Steps between held-out losses during training; 0 never."""
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    max_nonfinite: int = 5
    """Steps with a non-finite loss or gradient, none of which is applied, before training stops."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment: a list of stages and the settings of each."""

    name: str = "run"
    """Folder below `execution.runs_dir` that holds everything the run makes."""
    seed: int = 0
    stages: tuple[str, ...] = STAGES
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix products; parameters, norms, softmax, heads and losses stay float32."""
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    teacher: Teacher = Teacher()
    student: ModelConfig = sizes.MOBILEBERT
    transfer: Transfer = Transfer()
    distill: Distill = Distill()
    evaluate: Evaluate = Evaluate()
    execution: Execution = Execution()


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """Returns the locked `ConfigDict` form of `config`, for the command line to override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config), type_safe=True).lock()


def from_config_dict(config_dict: ml_collections.ConfigDict) -> Config:
    """Returns the typed, checked form of `config_dict`; raises InputError listing every mistake."""
    config = _build(Config, config_dict.to_dict(), "")
    found = problems(config)
    if found:
        raise InputError(
            "the configuration cannot be used:\n" + "\n".join(f"  - {p}" for p in found)
        )
    return config


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns the entry of `allowed` that looks most like `name`."""
    allowed = list(allowed)
    return (difflib.get_close_matches(name, allowed, n=1, cutoff=0.0) or allowed)[0]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns `{dotted.key: value}` of a dataclass, or of nested dicts, in sorted order."""
    tree = config if isinstance(config, Mapping) else dataclasses.asdict(config)
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return dict(sorted(flat.items()))


def _build(cls: type, values: Mapping[str, Any], path: str) -> Any:
    """Builds dataclass `cls` from nested dicts, checking names, choices and types."""
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise InputError(
                f"there is no setting {path}{key}; the nearest is {path}{nearest(key, hints)}"
            )
    built = {}
    for key, value in values.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            value = _build(typing.cast(type, hint), value, f"{path}{key}.")
        elif typing.get_origin(hint) is tuple:
            # The command line gives "a,b" as the one entry of a tuple.
            value = tuple(part.strip() for entry in value for part in str(entry).split(","))
        elif typing.get_origin(hint) is Literal:
            _check_choice(f"{path}{key}", value, typing.get_args(hint))
        elif hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif not isinstance(value, hint):
            raise InputError(f"{path}{key}={value!r} must be of type {hint.__name__}")
        built[key] = value
    return cls(**built)


def _check_choice(key: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value in allowed:
        return
    if key == "precision" and value in ("float16", "fp16", "half"):
        raise InputError(
            "precision='float16' is refused: the features of a NoNorm student grow into the "
            "thousands and overflow float16; use 'bfloat16' or 'float32'"
        )
    raise InputError(
        f"{key}={value!r} is not one of {', '.join(map(repr, allowed))}; "
        f"the nearest is {nearest(str(value), allowed)!r}"
    )


def problems(config: Config) -> list[str]:
    """Returns one sentence for each contradiction in `config`; empty when it can be run."""
    found = [f"teacher.model.{p}" for p in sizes.problems(config.teacher.model)]
    found += [f"student.{p}" for p in sizes.problems(config.student)]
    for stage in config.stages:
        if stage not in STAGES:
            found.append(
                f"stages names {stage!r}; stages are {', '.join(STAGES)}; "
                f"the nearest is {nearest(stage, STAGES)!r}"
            )
    found += _range_problems(config) + _data_problems(config) + _pairing_problems(config)
    return found


def _range_problems(config: Config) -> list[str]:
    flat = flatten(config)
    at_least_one = [k for k in flat if k.endswith((".steps", ".batch_size", "_every", "examples"))]
    at_least_one += ["execution.micro_batches", "execution.prefetch", "execution.keep_checkpoints"]
    found = [
        f"{key}={flat[key]} must be at least 1"
        for key in at_least_one
        if flat[key] < 1 and key != "execution.eval_every"
    ]
    for key in ("distill.alpha", "data.mask_rate", "data.short_rate", "transfer.lower_rate"):
        if not 0.0 <= flat[key] <= 1.0:
            found.append(f"{key}={flat[key]} must lie between 0 and 1")
    if config.execution.workers < 0:
        found.append(f"execution.workers={config.execution.workers} must be at least 0")
    if not 0.0 < config.data.held_out < 1.0:
        found.append(f"data.held_out={config.data.held_out} must lie strictly between 0 and 1")
    if config.distill.temperature <= 0:
        found.append(f"distill.temperature={config.distill.temperature} must be above 0")
    if not config.name or "/" in config.name or config.name.startswith("."):
        found.append(f"name={config.name!r} must be a plain folder name")
    return found


def _data_problems(config: Config) -> list[str]:
    found = []
    if config.data.length < 8:
        found.append(f"data.length={config.data.length} must be at least 8")
    if not 1 <= config.data.max_predictions <= config.data.length:
        found.append(
            f"data.max_predictions={config.data.max_predictions} must lie between 1 and "
            f"data.length={config.data.length}"
        )
    for name, model in (("teacher.model", config.teacher.model), ("student", config.student)):
        if config.data.length > model.max_positions:
            found.append(
                f"data.length={config.data.length} exceeds "
                f"{name}.max_positions={model.max_positions}"
            )
        if not config.tokenizer.path and 0 < model.vocab_size < config.tokenizer.vocab_size:
            found.append(
                f"{name}.vocab_size={model.vocab_size} is smaller than "
                f"tokenizer.vocab_size={config.tokenizer.vocab_size}"
            )
    parts = max(config.execution.micro_batches, 1)  # less than 1 is a mistake of its own
    for stage, size in _batch_sizes(config):
        if size % parts:
            found.append(
                f"{stage}.batch_size={size} does not divide into "
                f"execution.micro_batches={config.execution.micro_batches}"
            )
    return found


def _batch_sizes(config: Config) -> list[tuple[str, int]]:
    return [
        ("teacher", config.teacher.batch_size),
        ("transfer", config.transfer.batch_size),
        ("distill", config.distill.batch_size),
    ]


def _pairing_problems(config: Config) -> list[str]:
    """Where the student could not be compared with, or started from, the teacher."""
    found = []
    shared: tuple[str, ...] = (
        "vocab_size",
        "type_vocab_size",
        "max_positions",
        "hidden",
        "embedding",
        "trigram",
    )
    if config.transfer.strategy != "none":
        shared += ("layers", "heads")
    for name in shared:
        teacher, student = getattr(config.teacher.model, name), getattr(config.student, name)
        if teacher != student:
            found.append(
                f"teacher.model.{name}={teacher} and student.{name}={student} must be equal"
            )
    if "twin" in config.stages and config.transfer.batch_size != config.distill.batch_size:
        found.append(
            "the stage 'twin' reads the student's data in one go, so that "
            f"transfer.batch_size={config.transfer.batch_size} and "
            f"distill.batch_size={config.distill.batch_size} must be equal"
        )
    if (
        config.transfer.strategy == "progressive"
        and config.transfer.steps < 2 * config.student.layers
    ):
        found.append(
            f"transfer.steps={config.transfer.steps} leaves no step to some of the "
            f"{config.student.layers} layers; at least {2 * config.student.layers} are needed"
        )
    return found
