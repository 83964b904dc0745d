"""What a folder of sentence-transformers says of how its vectors are made.

Source: `modules.json`, `sentence_bert_config.json` and the configurations of the modules, as the
package sentence-transformers saves them.
"""

from pathlib import Path
from typing import Any, NamedTuple

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop.huggingface.safetensors import read_json
from mobilebert_jax.interop.sentence_vector import Pooling

MODULES = "modules.json"
_POOLS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_PREFIX = "sentence_transformers.models."


class Settings(NamedTuple):
    """How a text becomes a vector."""

    pooling: Pooling
    length: int | None
    """Tokens of a text at most; None where it is not said."""


def read(folder: Path) -> Settings | None:
    """Returns the settings, None where the folder is none of sentence-transformers.

    Raises InputError for modules that are not read: what comes out would be other vectors.
    """
    if not (folder / MODULES).is_file():
        return None
    pool, normalize = None, False
    for module in _modules(folder / MODULES):
        name = str(module.get("type")).removeprefix(_PREFIX)
        if name == "Pooling":
            pool = _pool(folder / str(module.get("path")) / "config.json")
        elif name == "Normalize":
            normalize = True
        elif name != "Transformer":
            raise InputError(
                f"{folder / MODULES}: the module {name!r} is not read; Transformer, Pooling and "
                "Normalize are"
            )
    if pool is None:
        raise InputError(f"{folder / MODULES}: there is no Pooling, which makes one vector a text")
    about = folder / "sentence_bert_config.json"
    length = read_json(about).get("max_seq_length") if about.is_file() else None
    if length is not None and type(length) is not int:
        raise InputError(f"{about}: max_seq_length={length!r} must be a whole number")
    return Settings(Pooling(pool, normalize), length)


def _modules(path: Path) -> list[dict[str, Any]]:
    found = read_json(path, list)
    if not all(isinstance(module, dict) for module in found):
        raise InputError(f"{path}: must be a list of objects, one a module")
    return found


def _pool(path: Path) -> str:
    settings = read_json(path)
    chosen = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value]
    if len(chosen) != 1 or chosen[0] not in _POOLS:
        raise InputError(
            f"{path}: {', '.join(chosen) or 'no pooling mode'} is not read; one of "
            f"{', '.join(_POOLS)} is"
        )
    return _POOLS[chosen[0]]
