"""MobileBERT by progressive knowledge transfer: the main experiment of the paper.

MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices (Sun et al., ACL 2020),
section 3.5, strategy "PKT": an IB-BERT teacher is pretrained, the student learns the teacher's
feature maps and attention one layer at a time from the bottom, and then learns words from the text
and from the teacher.

    launch/run.sh experiments/progressive_kt.py            demo: 2 CPU cores, minutes
    launch/run.sh experiments/progressive_kt.py:small      one GPU or a TPU v5e-8, hours
    launch/run.sh experiments/progressive_kt.py:paper      TPU v3-256, the published job

Cost: encoder FLOPs of the demo 3.5e13, of `paper` 2.5e21 (teacher 2.0e21, transfer 1.0e20,
distillation 4.0e20; `--dry_run` prints them).

Expected, demo, held-out masked-LM loss in nats: teacher 3.69, student 3.76, the same without
layer-wise transfer (control) 3.79, from scratch (baseline) 5.36; attention worth 0.13 to the
teacher; next sentence, fine-tuned, 71, 68 and 64 %. Time on two cores with AVX-512: 13 minutes
(13 min 44 s with the installation), up to twice that in the slow state of a rented machine.
Expected, paper: GLUE 77.7, SQuAD v1.1 F1 90.0 (not run here).
"""

import dataclasses
from typing import Any

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.execution import Execution, Mesh
from mobilebert_jax.config.finetune import Finetune, Search
from mobilebert_jax.config.schema import (
    STAGES,
    Config,
    Data,
    Distill,
    Evaluate,
    Export,
    Optimizer,
    Teacher,
    Tokenizer,
    Transfer,
)
from mobilebert_jax.model import sizes

SCALES = ("demo", "small", "paper")


def get_config(scale: str = "demo") -> ml_collections.ConfigDict:
    """Returns the configuration at one of `SCALES`."""
    config = {"demo": demo, "small": small, "paper": paper}[scale]()
    return to_config_dict(dataclasses.replace(config, name=f"progressive_kt-{scale}"))


def demo() -> Config:
    """The same structure as the paper's, narrow and four layers deep.

    Its teacher must use attention, or there is none to transfer (docs/reproduce.md says what was
    tried). So it is narrow and reads much; blocks start with larger weights, because with 0.02
    queries and keys of this width hardly differ; and 30 % of the tokens are masked, which hides a
    token's neighbours more often and makes attention, which alone sees further, worth more.
    """
    narrow: dict[str, Any] = {
        "vocab_size": 0,
        "max_position_embeddings": 64,
        "hidden_size": 64,
        "embedding_size": 64,
        "num_hidden_layers": 4,
        "initializer_range": 0.06,
    }
    teacher = dataclasses.replace(
        sizes.IB_BERT_LARGE,
        **narrow,
        intra_bottleneck_size=96,
        intermediate_size=256,
        hidden_dropout_prob=0.0,  # half a million parameters do not learn the text by heart
        attention_probs_dropout_prob=0.0,
    )
    student = dataclasses.replace(
        sizes.MOBILEBERT, **narrow, intra_bottleneck_size=32, intermediate_size=64
    )
    adamw = Optimizer(name="adamw", peak_learning_rate=2e-3, warmup_steps=100, bias_correction=True)
    constant = dataclasses.replace(adamw, peak_learning_rate=1e-3, warmup_steps=0, decay="constant")
    return Config(
        stages=STAGES,
        data=Data(
            source="python_docs",
            validation_fraction=0.25,
            max_seq_length=64,
            masked_lm_prob=0.3,
            max_predictions_per_seq=20,
        ),
        tokenizer=Tokenizer(vocab_size=2048),
        teacher=Teacher(model=teacher, steps=12_000, batch_size=16, optimizer=adamw),
        student=student,
        transfer=Transfer(steps=600, batch_size=16, optimizer=constant),
        # A higher learning rate unlearns part of what was transferred.
        distill=Distill(
            steps=400,
            batch_size=16,
            optimizer=dataclasses.replace(adamw, peak_learning_rate=1e-3, warmup_steps=50),
        ),
        evaluate=Evaluate(examples=2048, batch_size=64),
        finetune=Finetune(
            tasks=("next_sentence",),
            networks=("teacher", "student", "control", "untrained"),
            max_seq_length=64,
            search=Search(batch_sizes=(32,), learning_rates=(1e-3,), epochs=(1,), seeds=(0, 1)),
        ),
        export=Export(
            formats=("huggingface", "litert_float32", "litert_weight_int8", "litert_int8"),
            max_seq_length=64,
            skip_missing=True,
        ),
        # So narrow a network is computed as fast again by two devices of a core each.
        execution=Execution(
            cpu_devices=2,
            cpu_matmul_dtype="auto",
            student_scan_unroll=4,
            teacher_scan_unroll=4,
            teacher_train_scan_unroll=4,
            checkpoint_every=500,
            log_every=10,
        ),
    )


def small() -> Config:
    """Published widths at half the depth, on Wikipedia, in a working day or less."""
    return Config(
        precision="bfloat16",
        data=Data(source="tfds:wikipedia/20230601.en", validation_fraction=0.002),
        tokenizer=Tokenizer(vocab_size=30522, train_megabytes=256),
        teacher=Teacher(
            model=dataclasses.replace(sizes.IB_BERT_LARGE, num_hidden_layers=12),
            steps=30_000,
            batch_size=512,
            optimizer=Optimizer(peak_learning_rate=1e-3, warmup_steps=2_000),
        ),
        student=dataclasses.replace(sizes.MOBILEBERT, num_hidden_layers=12),
        transfer=Transfer(steps=12_000, batch_size=512),
        distill=Distill(
            steps=20_000,
            batch_size=512,
            optimizer=Optimizer(peak_learning_rate=1e-3, warmup_steps=1_000),
        ),
        evaluate=Evaluate(examples=16_384, batch_size=512),
        execution=Execution(log_every=50),
    )


def paper() -> Config:
    """Published widths, lengths, batches and steps."""
    return Config(
        stages=("prepare", "teacher", "transfer", "distill", "evaluate"),
        precision="bfloat16",
        data=Data(
            source="text:data/books/*.txt + wikiextractor:data/wikipedia/*/wiki_*",
            validation_fraction=0.001,
            max_seq_length=512,
        ),
        tokenizer=Tokenizer(vocab_size=30522, train_megabytes=1024),
        teacher=Teacher(),
        student=sizes.MOBILEBERT,
        transfer=Transfer(),
        distill=Distill(),
        evaluate=Evaluate(examples=65_536, batch_size=2048),
        execution=Execution(
            log_every=100,
            checkpoint_every=1000,
            # A fifth of the teacher's step would otherwise be the optimiser's, done by every chip.
            mesh=Mesh(fsdp=32),
            fsdp_shard="params_gathered_once",
            remat="full",
            # Of the teacher's products these are the widest: keeping them costs less than making
            # them again. The student's are narrow, and faster made than read.
            teacher_remat="feedforward",
            student_scan_unroll=24,
            teacher_scan_unroll=4,
        ),
    )
