"""The configuration: frozen dataclasses.

An experiment file builds a `Config`; `config_dict.py` takes it to the command line and back. Inside
the package only the typed form exists.

The configuration has two halves. Everything except `execution` is *science*: it changes numbers and
is part of the digest of whatever is made from it. `execution` says how the machine is used and must
not change numbers beyond float tolerance. This file must not import jax: reading a configuration
and reporting a mistake in it should take a fraction of a second.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from mobilebert_jax import bounds
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.finetune import Finetune
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig

STAGES = (
    "prepare",
    "teacher",
    "transfer",
    "distill",
    "control",
    "baseline",
    "evaluate",
    "finetune",
    "export",
)
AFTERWARDS = ("finetune", "export")
"""Stages that a run has only where they are asked for."""
FOLDER_FORMATS = ("huggingface", "mobilebert_jax")
"""Of networks that are not programs: a folder of parameters, settings and vocabulary."""
EXPORT_FORMATS = (
    *FOLDER_FORMATS,
    "litert_float32",
    "litert_weight_int8",
    "litert_dynamic_int8",
    "litert_int8",
    "onnx",
    "stablehlo",
)
Int8Part = Literal[
    "embeddings",
    "bottlenecks",
    "query_key_value",
    "attention_scores",
    "attention_context",
    "attention_output",
    "attention_residual",
    "feedforward_input",
    "feedforward_output",
    "feedforward_residual",
    "norms",
    "head",
]
INT8_PARTS: tuple[Int8Part, ...] = typing.get_args(Int8Part)
"""Of a network in a full-integer file."""
INT8_DEFAULT = "default"
"""Stands for the parts that are float32 by `interop.litert.parts.DEFAULTS`."""
GLUE_TASKS = ("cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "wnli")
SQUAD_TASKS = ("squad_v1.1", "squad_v2.0")
FILE_TASKS = ("classify", "tag")
"""Tasks on the user's own files."""
OPTIMIZERS = ("lamb", "adamw")
"""Those that have settings of their own; any other is the full name of a function."""
TASKS = (*GLUE_TASKS, *SQUAD_TASKS, *FILE_TASKS, "next_sentence")
NETWORKS = ("student", "teacher", "control", "baseline", "untrained")
"""What can be fine-tuned."""


class InputError(Exception):
    """A mistake in the configuration or in the input files; `main` prints it and exits with 2."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Text, and how pretraining examples are cut from it (paper section 4.2; BERT's recipe)."""

    source: bounds.Text = "python_docs"
    """Where documents come from: `python_docs`, `text:GLOB`, `wikiextractor:GLOB`,
    `jsonl:GLOB[#FIELD]` or `tfds:NAME[#FIELD]`; several as `0.7 text:a/*.txt + 0.3 python_docs`."""
    prepared: bounds.Text = ""
    """The finished stage `prepare` of another run to use instead of preparing `source`."""
    validation_fraction: bounds.HeldOut = 0.02
    """Share of documents kept from training, chosen by a hash of their text."""
    max_megabytes: bounds.MegabytesOrAll = 0
    """Stop reading a source after this much text; 0 reads all."""
    max_seq_length: bounds.Length = 128
    """Tokens of one example, special tokens included (S)."""
    max_predictions_per_seq: bounds.Tokens = 20
    """Most positions predicted in one example (P)."""
    masked_lm_prob: bounds.Share = 0.15
    short_seq_prob: bounds.Share = 0.1
    """Share of examples cut to a random shorter length."""
    whole_word_mask: bool = False
    """Mask all pieces of a word together."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """The vocabulary: trained on the corpus, or loaded when `path` is given."""

    kind: Literal["wordpiece", "sentencepiece_unigram", "sentencepiece_bpe"] = "wordpiece"
    path: bounds.Text = ""
    """A `vocab.txt` or a SentencePiece `.model` to load instead of training."""
    vocab_size: bounds.Vocabulary = 4096
    lowercase: bool = True
    train_megabytes: bounds.Megabytes = 16
    """Text that training reads at most."""
    max_unknown_share: bounds.Share = 0.05
    """Share of unknown tokens, as of another language or case, above which text for pretraining is
    refused, and a task warned of."""


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Update rule and its rate over time (paper section 4.3)."""

    name: bounds.Text = "lamb"
    """`lamb`, `adamw`, or the full name of a function that returns an optax transformation for a
    `learning_rate`, such as `optax.lion`. Schedule, clipping and learning rates per layer stay;
    `beta1`, `beta2`, `epsilon`, `weight_decay` and `bias_correction` are not used."""
    arguments: tuple[bounds.Text, ...] = ()
    """`NAME=VALUE` of that function."""
    peak_learning_rate: bounds.Rate = 1.5e-3
    warmup_steps: bounds.StepsOrNone = 10_000
    decay: Literal["linear", "constant"] = "linear"
    final_learning_rate_ratio: bounds.Share = 1e-4
    """Rate at the last step as a share of the peak, for linear decay."""
    beta1: bounds.Decay = 0.9
    beta2: bounds.Decay = 0.999
    epsilon: bounds.Epsilon = 1e-6
    weight_decay: bounds.Rate = 0.01
    clip_norm: bounds.ClipNorm = 1.0
    bias_correction: bool = False
    skip_gradient_norm_ratio: bounds.Multiple = 0.0
    """A step whose gradient norm is above this multiple of its running median is not applied; 0
    applies every step."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """Pretraining of the IB-BERT teacher on masked-LM and next-sentence prediction."""

    path: bounds.Text = ""
    """The finished teacher stage of another run to use instead of training one, or an imported
    network (a BERT too), whose sizes `model` must hold."""
    model: ModelConfig = sizes.IB_BERT_LARGE
    steps: bounds.Steps = 500_000
    batch_size: bounds.BatchSize = 4096
    optimizer: Optimizer = Optimizer()


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Layer-wise knowledge transfer from teacher to student (paper sections 3.4 and 3.5)."""

    strategy: Literal["progressive", "joint", "auxiliary", "none"] = "progressive"
    """`progressive` teaches one layer at a time, `joint` all layers at once, both before
    distillation; `auxiliary` adds the transfer losses to distillation instead."""
    copy_embeddings: bool = True
    """Start the student from the teacher's embeddings and heads, which must then have its sizes."""
    steps: bounds.Steps = 240_000
    """Steps over all layers together."""
    batch_size: bounds.BatchSize = 2048
    lower_layer_lr_scale: bounds.Share = 0.1
    """Rate of the layers below the active one, as a share of its own; 0 freezes them."""
    feature_map_weight: bounds.LossWeight = 100.0
    mean_weight: bounds.LossWeight = 5000.0
    variance_weight: bounds.LossWeight = 5.0
    attention_weight: bounds.LossWeight = 1.0
    average_over_layers: bool = False
    """Divide the losses by the number of layers, as the authors' code does; clipping sees it."""
    statistics_of_all_teacher_layers: bool = False
    """Compare each student layer's mean and variance with those of every teacher feature map, as
    the authors' code does, instead of with its own layer's."""
    optimizer: Optimizer = Optimizer(warmup_steps=0, decay="constant")
    """Under `progressive` each layer's phase shapes the rate, see optimizer/schedules.py."""


@dataclasses.dataclass(frozen=True)
class Distill:
    """Pretraining distillation of the student (paper section 3.4, last part)."""

    steps: bounds.Steps = 500_000
    batch_size: bounds.BatchSize = 2048
    alpha: bounds.Share = 0.5
    """Share of the hard-label masked-LM loss; the teacher's distribution has the rest. With 1 the
    teacher is not run."""
    temperature: bounds.Temperature = 1.0
    optimizer: Optimizer = Optimizer()

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher's distribution has a share of the loss."""
        return self.alpha < 1.0


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measurement on held-out documents."""

    examples: bounds.Examples = 1024
    batch_size: bounds.BatchSize = 64
    fill_mask_text: bounds.Text = "This method returns a new [MASK] with the given name."
    """The fill-mask sentence of the report; the tokenizer's own mask token may be written too."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Networks in other formats (paper section 4.4.3: latency on a phone, 8-bit weights)."""

    model: bounds.Text = ""
    """What to export: the folder of a run, or of a training stage or trial of one, a folder of
    Hugging Face, or a TensorFlow checkpoint of the authors; empty for the run's own student, and
    what it was fine-tuned to."""
    formats: tuple[bounds.Text, ...] = ("huggingface",)
    """`huggingface`, `mobilebert_jax` (for what that cannot express), `litert_float32`,
    `litert_weight_int8`, `litert_dynamic_int8`, `litert_int8`, `onnx`, `stablehlo`."""
    int8_float_parts: tuple[bounds.Text, ...] = (INT8_DEFAULT,)
    """What `litert_int8` computes in float32 beside look-ups and LayerNorm: names of `INT8_PARTS`;
    `default` for those that were measured to need it, `feedforward_output,feedforward_residual` in
    a network with LayerNorm and none in one with NoNorm; empty for none."""
    max_seq_length: bounds.Length = 128
    """Tokens of an example, where a format has fixed shapes and the network has no task."""
    skip_missing: bool = False
    """Leave out formats whose packages are not installed, and say so, instead of stopping."""
    licence: bounds.Text = ""
    """For the model card, such as `apache-2.0`."""


@dataclasses.dataclass(frozen=True)
class Ablations:
    """Variants of the experiment that are trained with several seeds and compared (paper, Tables 8
    and 9). Records and teacher are shared; `seed` is the teacher's."""

    variants: tuple[bounds.Text, ...] = ()
    """`NAME STAGE SETTING=VALUE ...` each. STAGE is the stage whose network is compared: `distill`,
    `control` or `baseline`. Without variants the experiment itself runs."""
    only: tuple[bounds.Text, ...] = ()
    """Names of the variants to run; empty for all."""
    orders: tuple[bounds.Text, ...] = ()
    """`BETTER < WORSE`: variants whose held-out losses the paper orders so."""
    ladder: tuple[bounds.Text, ...] = ()
    """Variants each of which adds one part to the one before."""
    largest_gain: bounds.Text = ""
    """The variant of the ladder whose part gains most, according to the paper."""
    seeds: tuple[bounds.Seed, ...] = (0, 1, 2, 3, 4)
    """Seeds of the students: first parameters and order of the data."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment: a list of stages and the settings of each."""

    name: bounds.FolderName = "run"
    """Folder below `execution.runs_dir` that holds everything the run makes."""
    seed: bounds.Seed = 0
    stages: tuple[bounds.Text, ...] = STAGES[: -len(AFTERWARDS)]
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix multiplications; parameters, norms, softmax, heads and losses stay float32."""
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    teacher: Teacher = Teacher()
    student: ModelConfig = sizes.MOBILEBERT
    transfer: Transfer = Transfer()
    distill: Distill = Distill()
    evaluate: Evaluate = Evaluate()
    finetune: Finetune = dataclasses.field(default_factory=Finetune)
    export: Export = Export()
    ablations: Ablations = Ablations()
    execution: Execution = dataclasses.field(default_factory=Execution)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns the entry of `allowed` that looks most like `name`.

    An entry with all the words of `name`, as `num_attention_heads` has `heads`, comes first.
    """
    allowed = list(allowed)
    longer = [entry for entry in allowed if _words(name) <= _words(entry)]
    return (difflib.get_close_matches(name, longer or allowed, n=1, cutoff=0.0) or allowed)[0]


def _words(name: str) -> set[str]:
    return set(re.findall("[^._ ]+", name.lower()))


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
