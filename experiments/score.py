"""A network scored as it is, without training: on GLUE, SQuAD, your own texts or tags.

    launch/run.sh experiments/score.py:squad --config.finetune.pretrained=downloads/squad \\
      --config.finetune.tasks=squad_v1.1 --config.finetune.source=squad_data
    launch/run.sh experiments/score.py:glue --config.finetune.pretrained=downloads/sst2 \\
      --config.finetune.tasks=sst-2 --config.finetune.source=glue_data
    launch/run.sh experiments/score.py:classify --config.finetune.pretrained=downloads/emotions \\
      --config.finetune.files.dev=dev.csv --config.finetune.files.label=emotion
    launch/run.sh experiments/score.py:tag --config.finetune.pretrained=... \\
      --config.finetune.files.dev=dev.conll

`finetune.pretrained` is a folder of Hugging Face, a TensorFlow checkpoint of a fine-tuned network,
or a finished trial of any run; its output layer must have the labels of the task, in any order
(docs/interop.md, output layers). No training file is read. The report, `results.json` and the
prediction files are those of fine-tuning.

Hardware and cost: one forward pass over the dev set; the published student reads SQuAD's in some
minutes on two CPU cores (computed, not run).

Expected, dev set, the published student of SQuAD v1.1: EM 82.9, F1 90.0.
"""

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.finetune import Files, Finetune, Search
from mobilebert_jax.config.schema import Config, Evaluate

SCALES = ("squad", "glue", "classify", "tag")

AS_IT_IS = Search(epochs=(0,), seeds=(0,))


def get_config(scale: str = "squad") -> ml_collections.ConfigDict:
    """Returns the configuration for one of `SCALES`, the kinds of tasks."""
    tasks = {"squad": "squad_v1.1", "glue": "sst-2"}.get(scale, scale)
    files = Files(dev={"classify": "dev.csv", "tag": "dev.conll"}.get(scale, ""))
    return to_config_dict(
        Config(
            name=f"score-{scale}",
            stages=("finetune",),
            finetune=Finetune(tasks=(tasks,), files=files, search=AS_IT_IS),
            evaluate=Evaluate(batch_size=32),
            execution=Execution(keep_checkpoints=1),
        )
    )
