"""MobileBERT end to end in JAX: teacher, layer-by-layer transfer, distillation, evaluation."""

import typing
from pathlib import Path

if typing.TYPE_CHECKING:
    from mobilebert_jax.inference.load import Loaded

__version__ = "0.1.0"


def load(path: str | Path) -> "Loaded":
    """Opens a finished network: `model, params, tokenizer, config = mobilebert_jax.load(path)`.

    `path` is a training stage, a trial or the folder of any run, an export, a folder of Hugging
    Face, or a TensorFlow checkpoint of the authors. Raises `config.schema.InputError` for anything
    else.
    """
    # Imported late: reading a configuration, which imports this file, should not wait for jax.
    from mobilebert_jax.inference import load as loading

    return loading.load(path)
