"""The authors' `bert_config.json`, MobileBERT's and BERT's, as our settings.

Source: `BertConfig` of the authors' MobileBERT code, whose defaults hold for absent settings. The
files of BERT give what is required here, the dropouts, initializer_range and the sizes of the
tables of types and positions. In both codes "gelu" is the tanh form.
"""

from pathlib import Path
from typing import Any, NamedTuple

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import Activation, ModelConfig, Norm, QueryKeySource

NAME = "bert_config.json"

ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu_tanh", "relu": "relu", "relu6": "relu6"}
NORMS: dict[str, Norm] = {"layer_norm": "layer_norm", "no_norm": "no_norm"}

_REQUIRED: dict[str, type] = {
    "vocab_size": int,
    "hidden_size": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "intermediate_size": int,
    "hidden_act": str,
}
_DEFAULTS: dict[str, Any] = {
    "type_vocab_size": 16,
    "max_position_embeddings": 512,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "trigram_input": False,
    "use_bottleneck": False,
    "use_bottleneck_attention": False,
    "key_query_shared_bottleneck": False,
    "num_feedforward_networks": 1,
    "normalization_type": "layer_norm",
    "classifier_activation": True,
}
_AS_HIDDEN = ("embedding_size", "intra_bottleneck_size")
"""Equal to hidden_size where absent."""


class Settings(NamedTuple):
    """What a `bert_config.json` says, and what it leaves to the authors' defaults."""

    config: ModelConfig
    assumed: dict[str, Any]


def read(path: Path) -> Settings:
    """Reads the settings of a network that TensorFlow trained.

    Raises InputError for a missing or unreadable file, a missing setting, or one of another type or
    of a value that no network here has.
    """
    given = _load(path)
    missing = [key for key in _REQUIRED if given.get(key) is None]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}, which shapes do not tell; there are "
            f"{', '.join(sorted(given)) or 'no settings'}"
        )
    defaults = _DEFAULTS | dict.fromkeys(_AS_HIDDEN, given["hidden_size"])
    assumed = {key: value for key, value in defaults.items() if given.get(key) is None}
    settings = {key: given[key] for key in (*_REQUIRED, *defaults) if key not in assumed} | assumed
    wanted = _REQUIRED | {key: type(value) for key, value in defaults.items()}
    for key, value in settings.items():
        _check_type(path, key, value, wanted[key])
    config = _config(path, settings)
    if problems := sizes.problems(config):
        raise InputError(f"{path}: {'; '.join(problems)}")
    return Settings(config, assumed)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"there is no {path}; put the {NAME} that the network was trained with there: a "
            "checkpoint does not tell its number of heads or its activation"
        )
    return safetensors_files.read_json(path)


def _check_type(path: Path, key: str, value: Any, wanted: type) -> None:
    allowed: type | tuple[type, ...] = (int, float) if wanted is float else wanted
    if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
        raise InputError(f"{path}: {key} is {value!r}; it must be {wanted.__name__}")


def _config(path: Path, settings: dict[str, Any]) -> ModelConfig:
    width = "intra_bottleneck_size" if settings["use_bottleneck"] else "hidden_size"
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        type_vocab_size=settings["type_vocab_size"],
        max_position_embeddings=settings["max_position_embeddings"],
        hidden_size=settings["hidden_size"],
        intra_bottleneck_size=settings[width],
        embedding_size=settings["embedding_size"],
        intermediate_size=settings["intermediate_size"],
        num_hidden_layers=settings["num_hidden_layers"],
        num_attention_heads=settings["num_attention_heads"],
        num_feedforward_networks=settings["num_feedforward_networks"],
        hidden_act=_choice(path, settings, "hidden_act", ACTIVATIONS),
        normalization_type=_choice(path, settings, "normalization_type", NORMS),
        hidden_dropout_prob=float(settings["hidden_dropout_prob"]),
        attention_probs_dropout_prob=float(settings["attention_probs_dropout_prob"]),
        trigram_input=settings["trigram_input"],
        trigram_masks_padding=False,
        use_bottleneck=settings["use_bottleneck"],
        query_key=_query_key(settings),
        pooler=settings["classifier_activation"],
        initializer_range=float(settings["initializer_range"]),
    )


def _choice(path: Path, settings: dict[str, Any], key: str, choices: dict[str, Any]) -> Any:
    value = settings[key]
    if value not in choices:
        raise InputError(
            f"{path}: {key} is {value!r}; known are {', '.join(choices)}; "
            f"nearest: {nearest(value, choices)}"
        )
    return choices[value]


def _query_key(settings: dict[str, Any]) -> QueryKeySource:
    if not settings["use_bottleneck"]:
        return "block_input"
    if settings["use_bottleneck_attention"]:
        return "bottleneck_input"
    return "shared_bottleneck" if settings["key_query_shared_bottleneck"] else "block_input"
