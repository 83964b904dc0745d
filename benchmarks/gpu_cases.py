"""The steps that `benchmarks.gpu` measures, and the configuration of each.

All are steps of the published job (`experiments/progressive_kt.py:paper`) on one device, in
bfloat16, without rematerialisation; `student` is its network alone, as the stage baseline trains
it. Full-size networks are 24 layers deep; the rehearsal's are tiny.
"""

import dataclasses
import runpy
from typing import Any, Literal, NamedTuple

from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.schema import Config
from mobilebert_jax.config.stage_settings import settle

VOCABULARY = 30522

Attention = Literal["xla", "cudnn"]


class Scale(NamedTuple):
    """Sizes of the measurements: the published ones, or tiny ones for a rehearsal on a CPU."""

    lengths: tuple[int, ...]
    layers: tuple[int, ...]
    """Of transfer."""
    depth: int
    first_tokens: int
    """Of the first batch of a student's search; a teacher's is half as large."""
    most_batch: int
    networks: dict[str, Any]
    """Sizes that both networks have instead of their own."""
    vocabulary: int = VOCABULARY
    predictions: int = 20


FULL = Scale((128, 512), (0, 11, 23), 24, 2**16, 2**12, {})
TINY = Scale(
    (16,),
    (0, 1),
    2,
    32,
    4,
    {
        "hidden_size": 16,
        "embedding_size": 8,
        "intra_bottleneck_size": 16,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_feedforward_networks": 1,
        "max_position_embeddings": 16,
    },
    vocabulary=64,
    predictions=3,
)


class Case(NamedTuple):
    """A step whose fastest batch is looked for."""

    stage: str
    length: int
    layer: int | None = None
    attention: Attention = "xla"
    unroll: int = 1
    """Blocks in a round of a student's loop."""
    attention_dropout: bool = True
    """Of a teacher in training; the student's steps have none."""

    @property
    def label(self) -> str:
        parts = [self.stage if self.layer is None else f"{self.stage} {self.layer}"]
        parts += [] if self.attention_dropout else ["without attention dropout"]
        parts += [f"length {self.length}", self.attention]
        parts += [f"unrolled by {self.unroll}"] if self.unroll > 1 else []
        return ", ".join(parts)

    @property
    def plain(self) -> "Case":
        """The same step as it is computed by default, whose best batch is the first to be tried."""
        return Case(self.stage, self.length, self.layer)


def check_device(is_gpu: bool, scale: Scale) -> None:
    """Ends the process where the published sizes would be measured on anything but a GPU."""
    if scale == FULL and not is_gpu:
        raise SystemExit("there is no GPU here; --tiny rehearses the measurements without one")


def cases(scale: Scale) -> list[Case]:
    """Returns all steps, those of the default settings first.

    Layer 0 of transfer has no layer below it whose scores nobody compares, and so no other form.
    """
    stages: list[tuple[str, int | None]] = [("student", None), ("teacher", None)]
    stages += [("transfer", layer) for layer in scale.layers] + [("distill", None)]
    found = [Case(stage, length, layer) for stage, layer in stages for length in scale.lengths]
    found += [
        Case(stage, length, layer, "cudnn")
        for stage, layer in stages
        for length in scale.lengths
        if stage != "teacher" and layer != 0
    ]
    found += [
        Case("teacher", length, None, attention, attention_dropout=False)
        for length in scale.lengths
        for attention in ("xla", "cudnn")
    ]
    found += [Case("student", length, unroll=scale.depth) for length in scale.lengths]
    return found


def first_batch(case: Case, scale: Scale) -> int:
    """Returns the batch at which the search for a step's best one begins."""
    tokens = scale.first_tokens // (2 if case.stage == "teacher" else 1)
    return max(1, tokens // case.length)


def stage_of(case: Case) -> str:
    """Returns the training stage whose step a case is."""
    return "baseline" if case.stage == "student" else case.stage


def configured(case: Case, scale: Scale, batch: int) -> Config:
    """Returns the published job with the case's length, batch and way of computing."""
    config: Config = runpy.run_path("experiments/progressive_kt.py")["paper"]()
    sized: dict[str, Any] = {**scale.networks, "vocab_size": scale.vocabulary}
    teacher = dataclasses.replace(config.teacher.model, **sized)
    if not case.attention_dropout:
        teacher = dataclasses.replace(teacher, attention_probs_dropout_prob=0.0)
    return settle(
        dataclasses.replace(
            config,
            data=dataclasses.replace(
                config.data,
                max_seq_length=case.length,
                max_predictions_per_seq=scale.predictions,
            ),
            tokenizer=dataclasses.replace(config.tokenizer, vocab_size=scale.vocabulary),
            teacher=dataclasses.replace(config.teacher, model=teacher, batch_size=batch),
            student=dataclasses.replace(config.student, **sized),
            transfer=dataclasses.replace(config.transfer, batch_size=batch),
            distill=dataclasses.replace(config.distill, batch_size=batch),
            execution=Execution(
                attention_implementation=case.attention, student_scan_unroll=case.unroll
            ),
        ),
        scale.vocabulary,
    )
