"""GLUE: a pretrained student fine-tuned on the nine tasks, beside the paper's Table 4.

MobileBERT (Sun et al., ACL 2020), section 4.4.2: batch sizes 16, 32 and 48, learning rates from
1e-5 to 1e-4 and 2 to 10 epochs are searched on the dev sets.

    launch/run.sh experiments/glue.py --config.finetune.pretrained=runs/NAME/distill-DIGEST \\
      --config.finetune.source=glue_data
    launch/run.sh experiments/glue.py:search --config.finetune.pretrained=...

`finetune.source` is the folder of the official files (it holds CoLA/, SST-2/ and so on), or `tfds`,
which downloads them. docs/tasks.md says where the files come from. `finetune.pretrained` is the
folder of any finished training stage; `--config.finetune.tasks=sst-2,mrpc` takes some of the tasks.

Hardware and cost, published sizes: `quick` (one choice of settings, 5 seeds) reads 24 million
examples, about 1.6e17 FLOPs, of which MNLI and QQP are four fifths; `search` costs 46 times as
much. At 50 TFLOP/s, which a recent GPU may reach, `quick` takes about an hour (computed, not run).

Expected, test server, the published student: CoLA 50.5, SST-2 92.8, MRPC 88.8, STS-B 84.4,
QQP 70.2, MNLI 83.3 / 82.6, QNLI 90.6, RTE 66.2, GLUE 77.7.
"""

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.finetune import Finetune, Search
from mobilebert_jax.config.schema import GLUE_TASKS, Config, Evaluate

SCALES = ("quick", "search")

QUICK = Search(batch_sizes=(32,), learning_rates=(5e-5,), epochs=(5,))
SEARCH = Search(
    batch_sizes=(16, 32, 48), learning_rates=(1e-5, 3e-5, 5e-5, 1e-4), epochs=(3, 6, 10)
)


def get_config(scale: str = "quick") -> ml_collections.ConfigDict:
    """Returns the configuration at one of `SCALES`."""
    search = {"quick": QUICK, "search": SEARCH}[scale]
    return to_config_dict(
        Config(
            name=f"glue-{scale}",
            stages=("finetune",),
            finetune=Finetune(tasks=GLUE_TASKS, search=search),
            evaluate=Evaluate(batch_size=64),
            execution=Execution(log_every=50, checkpoint_every=2000, keep_checkpoints=1),
        )
    )
