"""What each part of knowledge transfer is worth: the paper's Tables 8 and 9, with controls.

MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices (Sun et al., ACL 2020),
section 4.6: strategies of transfer (Table 8) and its objectives one by one (Table 9). The paper
compares by GLUE dev scores; here the measure is masked-LM loss on held-out text. All variants train
the student's network on the same data for the same number of steps, with every seed, and share
records and one teacher.

    launch/run.sh experiments/ablations.py                                     demo: 2 CPU cores
    launch/run.sh experiments/ablations.py --config.ablations.only=control,progressive
    launch/run.sh experiments/ablations.py --config.ablations.seeds=0,1
    launch/run.sh experiments/ablations.py:wiki --config.data.source='text:enwiki.txt'
    launch/run.sh experiments/ablations.py:small --config.ablations.seeds=0    one accelerator

Text for `small` can be prepared where no accelerator waits, with `progressive_kt.py:small
--config.stages=prepare`; then `--config.data.prepared=runs/progressive_kt-small/prepare-DIGEST`.

Cost: of the demo 14 variants x 5 seeds, one to three minutes each on two cores. Of `small`, on one
H200 with 26 MB of Wikipedia: 230 s for the teacher (568,000 tokens/s), 20 to 45 s for a student and
its scores, and three minutes of compilation once for a variant that is taught layer by layer.
`paper` trains 70 students. A longer list of seeds trains only the new ones, a run that was killed
goes on, and the page is there after the first variant.

Expected, demo (two cores, 7 to 16 minutes for the teacher, one to two for a student): progressive
ahead of the control in 5 of 5 seeds, by 0.026 nats on average, and all orders of both tables but
one, which is undecided; `wiki`, 26 MB of Wikipedia: ahead by 0.021. `small`: behind it by 0.026,
one seed. docs/reproduce.md has all that was measured; `paper` has not been run.
"""

import dataclasses
import runpy
from pathlib import Path

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.schema import Ablations, Config, Optimizer

SCALES = ("demo", "wiki", "small", "paper")

# An experiment is a file that is run by its path, so its neighbour is no module to import.
PROGRESSIVE_KT = runpy.run_path(str(Path(__file__).with_name("progressive_kt.py")))

ABLATIONS = Ablations(
    variants=(
        # Table 9, one part after the other.
        "from_scratch baseline",
        "copied control distill.alpha=1.0",
        "control control",
        "feature_maps distill transfer.attention_weight=0.0",
        "progressive distill",
        # Table 8.
        "joint distill transfer.strategy=joint",
        "auxiliary distill transfer.strategy=auxiliary",
        # Beside the tables.
        "attention_only distill transfer.feature_map_weight=0.0 transfer.mean_weight=0.0 "
        "transfer.variance_weight=0.0",
        "frozen_below distill transfer.lower_layer_lr_scale=0.0",
        "own_embeddings distill transfer.copy_embeddings=False",
        "own_embeddings_control control transfer.copy_embeddings=False",
        # Section 3.3: the cost of the operations that are fast on a phone.
        "layer_norm distill student.normalization_type=layer_norm",
        "gelu distill student.hidden_act=gelu",
        "layer_norm_gelu distill student.normalization_type=layer_norm student.hidden_act=gelu",
    ),
    orders=(
        "copied < from_scratch",
        "control < copied",
        "feature_maps < control",
        "progressive < feature_maps",
        "progressive < control",
        "progressive < joint",
        "joint < auxiliary",
        "own_embeddings < own_embeddings_control",
    ),
    ladder=("copied", "control", "feature_maps", "progressive"),
    largest_gain="feature_maps",
)


def get_config(scale: str = "demo") -> ml_collections.ConfigDict:
    """Returns the configuration at one of `SCALES`."""
    base: Config = PROGRESSIVE_KT["demo" if scale == "wiki" else scale]()
    if scale == "wiki":
        base = _wiki(base)
    if scale == "small":
        base = _quarter_of_an_hour(base)
    return to_config_dict(
        dataclasses.replace(
            base,
            name=f"ablations-{scale}",
            stages=("prepare", "teacher"),
            ablations=ABLATIONS,
            # Read ten times a student: half as many examples as one evaluation at the end has.
            evaluate=dataclasses.replace(base.evaluate, examples=base.evaluate.examples // 2),
            execution=dataclasses.replace(
                base.execution, eval_every=_steps(base) // 9, keep_checkpoints=1
            ),
        )
    )


def _wiki(demo: Config) -> Config:
    """The demo on a text of one's own: nothing but the data differs."""
    return dataclasses.replace(
        demo,
        data=dataclasses.replace(demo.data, source="text:enwiki.txt", validation_fraction=0.02),
        tokenizer=dataclasses.replace(demo.tokenizer, train_megabytes=26),
    )


def _quarter_of_an_hour(base: Config) -> Config:
    """Published widths, six layers deep, for one accelerator that is lent for minutes."""
    adamw = Optimizer(name="adamw", peak_learning_rate=1e-3, warmup_steps=100, bias_correction=True)
    constant = dataclasses.replace(adamw, warmup_steps=0, decay="constant")
    return dataclasses.replace(
        base,
        tokenizer=dataclasses.replace(base.tokenizer, vocab_size=8192),
        teacher=dataclasses.replace(
            base.teacher,
            model=dataclasses.replace(base.teacher.model, num_hidden_layers=6),
            steps=1_600,
            batch_size=512,
            optimizer=dataclasses.replace(adamw, peak_learning_rate=5e-4, warmup_steps=200),
        ),
        student=dataclasses.replace(base.student, num_hidden_layers=6),
        transfer=dataclasses.replace(base.transfer, steps=300, batch_size=128, optimizer=constant),
        distill=dataclasses.replace(base.distill, steps=300, batch_size=128, optimizer=adamw),
        evaluate=dataclasses.replace(base.evaluate, examples=8_192, batch_size=512),
        # A program takes a GPU's compiler half a minute, a layer's turn takes two seconds.
        execution=dataclasses.replace(base.execution, precompile_phases=5),
    )


def _steps(config: Config) -> int:
    return config.transfer.steps + config.distill.steps
