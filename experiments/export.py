"""Any finished network in other formats: Hugging Face, LiteRT (phones), ONNX, StableHLO.

MobileBERT (Sun et al., ACL 2020), section 4.4.3 (latency on a phone) and 4.4.4 (8-bit weights).

    launch/run.sh experiments/export.py --config.export.model=runs/NAME/distill-DIGEST
    launch/run.sh experiments/export.py:phone --config.export.model=runs/NAME/trials/TRIAL \\
      --config.finetune.source=glue_data
    launch/run.sh experiments/export.py:all --config.export.model=...

`export.model` is the folder of a training stage, of a trial of fine-tuning, of Hugging Face, or a
TensorFlow checkpoint of the authors. Scales: `huggingface` needs nothing more; `phone` writes
LiteRT in float32, with int8 weights, and in full integers; `all` everything. For these two first

    .venv/bin/python -m pip install --no-deps -r requirements-export.txt

A trial's files are run on the dev set of its task, for which `finetune.source` (or
`finetune.files`) must name the data that it was fine-tuned on; full integers are calibrated on its
training rows.

Hardware and cost: two CPU cores; a network of published size takes about half a minute a file, and
three minutes in full integers.

Expected, dev sets, the published student with 8-bit weights (unverified metrics): MNLI, QNLI,
SST-2 and SQuAD within 0.2 points of float32, MRPC within 0.5. Full integers lose more: public
metrics for SQuAD v1.1 are one to two points of F1.
"""

import ml_collections

from mobilebert_jax.config.config_dict import to_config_dict
from mobilebert_jax.config.schema import EXPORT_FORMATS, Config, Export

SCALES = ("huggingface", "phone", "all")


def get_config(scale: str = "huggingface") -> ml_collections.ConfigDict:
    """Returns the configuration at one of `SCALES`."""
    formats = {
        "huggingface": ("huggingface",),
        "phone": ("litert_float32", "litert_weight_int8", "litert_int8"),
        "all": EXPORT_FORMATS,
    }[scale]
    return to_config_dict(Config(name="export", stages=("export",), export=Export(formats=formats)))
