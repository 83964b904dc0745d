"""Training for 8 bits: a fine-tuned network learns to bear integers, and leaves in them.

MobileBERT (Sun et al., ACL 2020), section 4.4.4, and the authors' quantisation-aware training:
every dense layer's input and kernel, every NoNorm and the attention scores are rounded to 8 bits
while gradients pass; ranges are moving averages (0.999) that begin at those of 100 training rows.

    launch/run.sh experiments/quantize.py --config.finetune.tasks=sst-2 \\
      --config.finetune.pretrained=runs/NAME/trials/sst-2-student-DIGEST \\
      --config.finetune.source=glue_data

`finetune.pretrained` is a trial of full precision on the same task, whose output layer is kept.
What post-training rounding makes of it: `launch/run.sh experiments/export.py:phone`. The LiteRT
files at the end need `requirements-export.txt` (see that file).

Hardware and cost: as one epoch of fine-tuning, and half as much again.

Expected: at least the score of post-training rounding (docs/interop.md has a run). Public metrics
of full-integer MobileBERTs, SQuAD v1.1 F1: 90 becomes 88.
"""

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.finetune import Finetune, Search
from mobilebert_jax.config.schema import Config, Evaluate, Export

SCALES = ("quick",)


def get_config(scale: str = "quick") -> ml_collections.ConfigDict:
    """Returns the configuration; `scale` is the one of `SCALES`."""
    search = Search(batch_sizes=(32,), learning_rates=(1e-5,), epochs=(1,), seeds=(0, 1, 2))
    return to_config_dict(
        Config(
            name=f"quantize-{scale}",
            stages=("finetune", "export"),
            finetune=Finetune(tasks=("sst-2",), search=search, quantized=True),
            evaluate=Evaluate(batch_size=64),
            export=Export(formats=("litert_int8",)),
            execution=Execution(log_every=50, checkpoint_every=2000, keep_checkpoints=1),
        )
    )
