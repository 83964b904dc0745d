"""MobileBERT from a BERT that exists: pretraining distillation alone, without IB-BERT.

MobileBERT (Sun et al., ACL 2020), section 3.4: the student learns words from the text and from the
teacher's distribution over them. A BERT has other widths than the student, so that nothing can be
compared layer by layer or copied: that is what IB-BERT was made for.

    launch/run.sh experiments/bert_teacher.py --config.teacher.path=bert-base-uncased \\
      --config.tokenizer.path=bert-base-uncased/vocab.txt
    launch/run.sh experiments/bert_teacher.py:large --config.teacher.path=bert-large-uncased \\
      --config.tokenizer.path=bert-large-uncased/vocab.txt

`teacher.path` is a folder of Hugging Face's (`config.json`, `model.safetensors`) or a TensorFlow
checkpoint of the authors' (`bert_config.json`, `vocab.txt` beside it), with both heads of
pretraining, as the published BERTs have them. `tokenizer.path` is its vocabulary, which the student
shares.

Hardware and cost: text and steps as `small` of experiments/progressive_kt.py, one GPU or a TPU
v5e-8; 10,240,000 sequences of 128 tokens, of which the teacher's forward pass (22 GFLOPs a
sequence, 79 for `large`) is the larger part. Computed, not run.

Expected: nothing is published for this pairing.
"""

import dataclasses

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.schema import (
    Config,
    Data,
    Distill,
    Evaluate,
    Optimizer,
    Teacher,
    Transfer,
)
from mobilebert_jax.model import sizes

SCALES = ("base", "large")


def get_config(scale: str = "base") -> ml_collections.ConfigDict:
    """Returns the configuration with BERT_BASE or BERT_LARGE as the teacher."""
    bert = {"base": sizes.BERT_BASE, "large": sizes.BERT_LARGE}[scale]
    return to_config_dict(
        Config(
            name=f"bert_teacher-{scale}",
            stages=("prepare", "teacher", "distill", "evaluate"),
            precision="bfloat16",
            data=Data(source="tfds:wikipedia/20230601.en", validation_fraction=0.002),
            teacher=Teacher(model=dataclasses.replace(bert, vocab_size=0)),
            student=dataclasses.replace(sizes.MOBILEBERT, vocab_size=0),
            transfer=Transfer(strategy="none", copy_embeddings=False),
            distill=Distill(
                steps=20_000,
                batch_size=512,
                optimizer=Optimizer(peak_learning_rate=1e-3, warmup_steps=1_000),
            ),
            evaluate=Evaluate(examples=16_384, batch_size=512),
            execution=Execution(log_every=50),
        )
    )
