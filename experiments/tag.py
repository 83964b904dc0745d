"""Token classification on CoNLL files: names of people and places, parts of speech, fields.

    launch/run.sh experiments/tag.py --config.finetune.pretrained=runs/NAME/distill-DIGEST \\
      --config.finetune.files.train=train.conll --config.finetune.files.dev=dev.conll

A file has one word a line, the word first and its tag last, and a blank line between sentences;
tags are BIO (either kind) or BIOES and are scored by whole entities. `files.test` may lack the tags
and is predicted into `predictions/`. Recipe: BERT (Devlin et al., 2019), section 5.3: a word is
tagged at its first piece.

Hardware and cost: an epoch of CoNLL-2003 (14,000 sentences) costs the published student about 6e14
FLOPs: a minute on a GPU (computed from its FLOPs).

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
    files = Files(train="train.conll", dev="dev.conll")
    search = Search(
        batch_sizes=(32,), learning_rates=(5e-5, 1e-4, 3e-4), epochs=(5,), seeds=(0, 1, 2)
    )
    return to_config_dict(
        Config(
            name=f"tag-{scale}",
            stages=("finetune",),
            finetune=Finetune(tasks=("tag",), files=files, search=search),
            evaluate=Evaluate(batch_size=64),
            execution=Execution(checkpoint_every=1000, keep_checkpoints=1),
        )
    )
