"""Settings of fine-tuning: tasks, networks, the search over hyperparameters, and SQuAD's own."""

import dataclasses
from typing import Literal

from mobilebert_jax import bounds


@dataclasses.dataclass(frozen=True)
class Search:
    """Settings of fine-tuning that are tried: every combination of them, with every seed."""

    batch_sizes: tuple[bounds.BatchSize, ...] = (32,)
    learning_rates: tuple[bounds.PositiveRate, ...] = (5e-5,)
    epochs: tuple[bounds.ManyOrNone, ...] = (4,)
    """0 scores a network as it is, whose output layer must be one of the task. Where nothing else
    is tried, no training file is needed."""
    seeds: tuple[bounds.Seed, ...] = (0, 1, 2, 3, 4)

    @property
    def trains(self) -> bool:
        """Whether there is anything to learn from a training file."""
        return any(self.epochs)


@dataclasses.dataclass(frozen=True)
class Squad:
    """Question answering by a span of a text, as for SQuAD (BERT's recipe)."""

    max_seq_length: bounds.Length = 384
    """Tokens of one window, question and special tokens included."""
    doc_stride: bounds.Tokens = 128
    """Context tokens from the start of a window to that of the next."""
    max_query_length: bounds.Tokens = 64
    """Question tokens beyond this many are cut off."""
    max_answer_length: bounds.Tokens = 30
    """Most tokens of an answer."""
    n_best_size: bounds.Tokens = 20
    """Answers kept of each question, and starts and ends considered in each window."""
    null_score_diff_threshold: bounds.Score = 0.0
    """SQuAD v2.0: no answer is given where its score exceeds the best span's by more than this."""


@dataclasses.dataclass(frozen=True)
class Files:
    """A task's own files, for `classify`, `tag` and the SQuAD tasks."""

    train: bounds.Text = ""
    dev: bounds.Text = ""
    test: bounds.Text = ""
    """May lack the labels; empty for none."""
    text: bounds.Text = "text"
    """Column, or JSON field, of the text (`classify`)."""
    second_text: bounds.Text = ""
    """Column of the second text of a pair; empty for single texts."""
    label: bounds.Text = "label"
    kind: Literal["classes", "number"] = "classes"


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Fine-tuning of finished networks on tasks, scored on dev sets (paper section 4.4)."""

    tasks: tuple[bounds.Text, ...] = ()
    """GLUE: `cola`, `sst-2`, `mrpc`, `sts-b`, `qqp`, `mnli`, `qnli`, `rte`, `wnli`; `squad_v1.1`,
    `squad_v2.0`; `classify` and `tag` on files of your own; `next_sentence`, made of the documents
    that `data.validation_fraction` keeps from pretraining."""
    source: bounds.Text = "tfds"
    """Where GLUE and SQuAD come from: `tfds`, or the folder of the official files."""
    files: Files = Files()
    networks: tuple[bounds.Text, ...] = ("student",)
    """What is fine-tuned: `student`, `teacher`, `control`, `baseline`, or `untrained`, the
    student's network with random parameters."""
    pretrained: bounds.Text = ""
    """What to use as the student: the folder of a finished training stage or trial, of any run, or
    an imported network: a folder of Hugging Face, or a TensorFlow checkpoint of the authors.
    Its output layer is kept where it is of a task with the same labels."""
    max_seq_length: bounds.Length = 128
    """Tokens of one example at most, special tokens included; longer texts are cut."""
    search: Search = Search()
    classifier_dropout: bounds.NotAll = 0.1
    """Of the features that the task's output layer reads."""
    warmup_proportion: bounds.NotAll = 0.1
    """Share of the steps in which the rate rises, before it falls to 0."""
    weight_decay: bounds.Rate = 0.01
    clip_norm: bounds.ClipNorm = 1.0
    bias_correction: bool = True
    """Without it, as in BERT, small training sets end untrained for some seeds."""
    quantized: bool = False
    """Compute as 8-bit integers would, so that the network learns to bear it; for networks with
    NoNorm that were fine-tuned in full precision before."""
    calibration_rows: bounds.Examples = 100
    """Training rows that show the ranges of 8-bit numbers, before training and for export."""
    squad: Squad = Squad()
