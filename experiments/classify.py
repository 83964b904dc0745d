"""Text classification on your own files: emotions, sentiment, topics, pairs of texts, or a number.

    launch/run.sh experiments/classify.py --config.finetune.pretrained=runs/NAME/distill-DIGEST \\
      --config.finetune.files.train=train.csv --config.finetune.files.dev=dev.csv \\
      --config.finetune.files.text=text --config.finetune.files.label=emotion

Files are .csv, .tsv or .jsonl (also .gz, .zst) with named columns; `files.second_text` names the
second text of a pair, `files.kind=number` learns a number in place of classes, `files.test` is
predicted into `predictions/`. Recipe: MobileBERT (Sun et al., ACL 2020), section 4.4, AdamW with
warm-up and linear decay, three learning rates, chosen on the dev file by the median of three seeds.

Hardware and cost: 10,000 texts of 40 tokens cost the published student about 5e14 FLOPs an epoch:
a minute on a GPU, half an hour on two CPU cores (computed from its FLOPs).

Expected: depends on the files; the report shows median and range over the seeds.
"""

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.finetune import Files, Finetune, Search
from mobilebert_jax.config.schema import Config, Evaluate

SCALES = ("quick",)


def get_config(scale: str = "quick") -> ml_collections.ConfigDict:
    """Returns the configuration; `scale` is the one of `SCALES`."""
    files = Files(train="train.csv", dev="dev.csv")
    search = Search(
        batch_sizes=(32,), learning_rates=(3e-5, 1e-4, 3e-4), epochs=(4,), seeds=(0, 1, 2)
    )
    return to_config_dict(
        Config(
            name=f"classify-{scale}",
            stages=("finetune",),
            finetune=Finetune(tasks=("classify",), files=files, search=search),
            evaluate=Evaluate(batch_size=64),
            execution=Execution(checkpoint_every=1000, keep_checkpoints=1),
        )
    )
