"""SQuAD v1.1 and v2.0: a pretrained student that answers by a span, beside the paper's Table 5.

MobileBERT (Sun et al., ACL 2020), section 4.4.3, with the settings of the authors' release: batch
32, rate 4e-5, 5 epochs, windows of 384 tokens with a stride of 128, questions of at most 64 tokens,
answers of at most 30.

    launch/run.sh experiments/squad.py --config.finetune.pretrained=runs/NAME/distill-DIGEST \\
      --config.finetune.source=squad_data
    launch/run.sh experiments/squad.py --config.finetune.pretrained=... \\
      --config.finetune.tasks=squad_v1.1 \\
      --config.finetune.files.train=my_train.json --config.finetune.files.dev=my_dev.json

`finetune.source` is a folder with train-v1.1.json, dev-v1.1.json, train-v2.0.json and
dev-v2.0.json, or `tfds`, which downloads them (docs/tasks.md).

Hardware and cost, published sizes: 5 epochs are 14,000 (v1.1) and 21,000 steps of batch 32,
1.3e16 and 2.0e16 FLOPs a seed: some minutes at 50 TFLOP/s (computed, not run).

Expected, dev set, the published student: v1.1 EM 82.9, F1 90.0; v2.0 EM 76.2, F1 79.2.
"""

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.finetune import Finetune, Search
from mobilebert_jax.config.schema import SQUAD_TASKS, Config, Evaluate

SCALES = ("paper",)


def get_config(scale: str = "paper") -> ml_collections.ConfigDict:
    """Returns the configuration; `scale` is the one of `SCALES`."""
    search = Search(batch_sizes=(32,), learning_rates=(4e-5,), epochs=(5,), seeds=(0, 1, 2))
    return to_config_dict(
        Config(
            name=f"squad-{scale}",
            stages=("finetune",),
            finetune=Finetune(tasks=SQUAD_TASKS, search=search, classifier_dropout=0.0),
            evaluate=Evaluate(batch_size=32),
            execution=Execution(log_every=50, checkpoint_every=2000, keep_checkpoints=1),
        )
    )
