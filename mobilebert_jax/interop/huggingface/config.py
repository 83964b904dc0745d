"""Between Hugging Face's `config.json` and our settings, kind of head and labels.

Source: `configuration_mobilebert.py`, `configuration_bert.py` and `configuration_squeezebert.py` of
`transformers`, whose defaults hold for keys that a file lacks.
"""

import difflib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.interop import parameter_names
from mobilebert_jax.interop.model import Kind, numbered_labels
from mobilebert_jax.interop.parameter_names import Body
from mobilebert_jax.model import sizes
from mobilebert_jax.model.layers import LAYER_NORM_EPSILON
from mobilebert_jax.model.sizes import Activation, ModelConfig, Norm, QueryKeySource

CLASSES: dict[Body, str] = {
    "mobilebert": "MobileBert",
    "bert": "Bert",
    "squeezebert": "SqueezeBert",
}
"""How the names of classes begin, by `model_type`."""

HEADS: dict[Kind, str] = {
    "bare": "Model",
    "masked_lm": "ForMaskedLM",
    "next_sentence": "ForNextSentencePrediction",
    "pretraining": "ForPreTraining",
    "sequence_classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "multiple_choice": "ForMultipleChoice",
    "question_answering": "ForQuestionAnswering",
}

WITHOUT_NEXT_SENTENCE: tuple[Kind, ...] = ("next_sentence", "pretraining")
"""Kinds that SqueezeBERT does not have there."""

ARCHITECTURES = {
    f"{stem}{head}": (kind, model_type)
    for model_type, stem in CLASSES.items()
    for kind, head in HEADS.items()
    if not (model_type == "squeezebert" and kind in WITHOUT_NEXT_SENTENCE)
}
"""Kind and `model_type` of every class that is read, by its name."""

READ_NETWORKS = "read are those of {}, {} and {} with {} ({} without {} and {})".format(
    *CLASSES.values(),
    ", ".join(HEADS.values()),
    CLASSES["squeezebert"],
    *(HEADS[kind] for kind in WITHOUT_NEXT_SENTENCE),
)

POOLED: tuple[Kind, ...] = (
    "bare",
    "next_sentence",
    "pretraining",
    "sequence_classification",
    "multiple_choice",
)
"""Kinds that read a pooler there; the others read every position, and only SqueezeBERT's hold one
all the same."""

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu6": "relu6",
}
_WRITTEN_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}

SPAN_LABELS = ("start", "end")
_SEVERAL_CLASSES = "multi_label_classification"
_CLASSIFIER_DROPOUT = 0.1  # MobileBERT's and BERT's fine-tuning; the class's own default may be 0


class _Default(NamedTuple):
    """The value of a setting where a config.json lacks it, by kind of network."""

    mobilebert: Any
    bert: Any
    """SqueezeBERT's too."""

    def of(self, model_type: Body) -> Any:
        """Returns that of one kind of network."""
        return self.mobilebert if model_type == "mobilebert" else self.bert


_DEFAULTS = {
    "vocab_size": _Default(30522, 30522),
    "type_vocab_size": _Default(2, 2),
    "max_position_embeddings": _Default(512, 512),
    "hidden_size": _Default(512, 768),
    "intermediate_size": _Default(512, 3072),
    "num_hidden_layers": _Default(24, 12),
    "num_attention_heads": _Default(4, 12),
    "hidden_dropout_prob": _Default(0.0, 0.1),
    "attention_probs_dropout_prob": _Default(0.1, 0.1),
    "initializer_range": _Default(0.02, 0.02),
}
_ONLY_MOBILEBERTS = {
    "intra_bottleneck_size",
    "use_bottleneck",
    "num_feedforward_networks",
    "trigram_input",
    "key_query_shared_bottleneck",
}
_MOBILEBERT_DEFAULTS = {
    "embedding_size": _Default(128, None),
    "num_feedforward_networks": _Default(4, None),
    "trigram_input": _Default(True, None),
}
_SQUEEZEBERT_DEFAULTS = {
    "embedding_size": _Default(None, 768),
    "q_groups": _Default(None, 4),
    "k_groups": _Default(None, 4),
    "v_groups": _Default(None, 4),
    "post_attention_groups": _Default(None, 1),
    "intermediate_groups": _Default(None, 4),
    "output_groups": _Default(None, 4),
}
_ONLY: dict[Body, dict[str, _Default]] = {
    "mobilebert": _MOBILEBERT_DEFAULTS,
    "bert": {},
    "squeezebert": _SQUEEZEBERT_DEFAULTS,
}


_NOTHING_OF = {
    "mobilebert": "a MobileBERT with nothing of MobileBERT (use_bottleneck and trigram_input are "
    "false, normalization_type is layer_norm, num_feedforward_networks is 1)",
    "squeezebert": "a SqueezeBERT with nothing of SqueezeBERT (every layer has 1 group)",
}


class Settings(NamedTuple):
    """What a config.json says."""

    config: ModelConfig
    """`pooler` is what the class with a pooler would hold, whether this kind holds it or not."""
    model_type: Body
    kind: Kind | None
    """None where the file does not say."""
    outputs: int | None
    """Of a classifier; None where the file does not say, and the tensors do."""
    labels: tuple[str, ...]
    """Empty where they are the names that Hugging Face makes up."""


def parse(content: Mapping[str, Any], where: Path) -> Settings:
    """Returns what a config.json says.

    Raises InputError for architectures, activations and forms that this project does not have,
    naming the nearest, and for values of a wrong type.
    """
    kind, model_type = _architecture(content, where)
    _refuse(content, kind, where)
    values = {
        name: _value(content, name, default.of(model_type), where)
        for name, default in (_DEFAULTS | _ONLY[model_type]).items()
    }
    default = "relu" if model_type == "mobilebert" else "gelu"
    values["hidden_act"] = ACTIVATIONS[
        _choice(content, "hidden_act", default, tuple(ACTIVATIONS), where)
    ]
    values |= _mobilebert(content, where) if model_type == "mobilebert" else _bert(values)
    # Published weights were trained with padding in the trigram, and transformers computes so.
    config = ModelConfig(**values, trigram_masks_padding=False)
    found = sizes.problems(config)
    if config.vocab_size < 1:
        found.append(f"vocab_size={config.vocab_size} must be at least 1")
    if model_type in _NOTHING_OF and parameter_names.huggingface_body(config) == "bert":
        found.append(
            f"{_NOTHING_OF[model_type]} is a BERT; save its tensors under the names of BERT, with "
            "a BertConfig"
        )
    if found:
        raise InputError(f"{where}: {'; '.join(found)}")
    outputs, labels = _labels(content, where)
    return Settings(config, model_type, kind, outputs, labels)


def make(
    config: ModelConfig, kind: Kind, labels: tuple[str, ...], outputs: int, pad: int
) -> dict[str, Any]:
    """Returns the config.json of a network that Hugging Face can express.

    `pad` is the id of padding. Read by `transformers` 4 and 5.
    """
    model_type = parameter_names.huggingface_body(config)
    content: dict[str, Any] = {
        "architectures": [f"{CLASSES[model_type]}{HEADS[kind]}"],
        "model_type": model_type,
        "torch_dtype": "float32",
        "hidden_act": _WRITTEN_ACTIVATIONS.get(config.hidden_act, config.hidden_act),
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "pad_token_id": pad,
        "tie_word_embeddings": True,
        **{name: getattr(config, name) for name in (_DEFAULTS | _ONLY[model_type])},
    }
    if model_type != "squeezebert":  # which drops what a classifier reads like what a block gives
        content["classifier_dropout"] = _CLASSIFIER_DROPOUT
    if model_type == "mobilebert":
        content |= {
            "use_bottleneck": config.use_bottleneck,
            "intra_bottleneck_size": config.intra_bottleneck_size,
            "true_hidden_size": config.intra_bottleneck_size,
            "use_bottleneck_attention": config.query_key == "bottleneck_input",
            "key_query_shared_bottleneck": config.query_key == "shared_bottleneck",
            "normalization_type": config.normalization_type,
            "classifier_activation": config.pooler and kind in POOLED,
        }
    if kind in ("sequence_classification", "token_classification"):
        known = labels or numbered_labels(outputs)
        content["id2label"] = {str(i): label for i, label in enumerate(known)}
        content["label2id"] = {label: i for i, label in enumerate(known)}
    if kind == "sequence_classification" and outputs == 1:
        content["problem_type"] = "regression"
    return content


def _architecture(content: Mapping[str, Any], where: Path) -> tuple[Kind | None, Body]:
    listed = content.get("architectures")
    if listed is not None and not isinstance(listed, list):
        raise InputError(f'{where}: "architectures" must be a list with one name, not {listed!r}')
    model_type = content.get("model_type")
    if not listed and model_type is None:
        # Files of before there was this key; settings that only one of them has tell which.
        model_type = "mobilebert" if set(content) & _ONLY_MOBILEBERTS else "bert"
        model_type = "squeezebert" if "q_groups" in content else model_type
    if listed:
        name = str(listed[0])
        if name not in ARCHITECTURES:
            raise InputError(
                f"{where}: the architecture {name!r} is not read; {READ_NETWORKS}"
                f"{_meant(name, ARCHITECTURES)}"
            )
        kind, model_type_of_name = ARCHITECTURES[name]
        if model_type not in (None, model_type_of_name):
            raise InputError(f"{where}: the model_type {model_type!r} has no architecture {name}")
        return kind, model_type_of_name
    for known in CLASSES:
        if model_type == known:
            return None, known
    raise InputError(f"{where}: the model_type {model_type!r} is not read; {READ_NETWORKS}")


def _meant(name: str, known: Iterable[str]) -> str:
    """Returns which class a misspelt name of one of these families means, if any."""
    if not name.startswith(tuple(CLASSES.values())):
        return ""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    return f"; the nearest is {near[0]}" if near else ""


def _refuse(content: Mapping[str, Any], kind: Kind | None, where: Path) -> None:
    """Raises InputError for settings that change what a network computes and that ours lacks."""
    only: dict[str, tuple[Any, ...]] = {
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "layer_norm_eps": (LAYER_NORM_EPSILON,),
    }
    for key, allowed in only.items():
        if content.get(key) not in (None, *allowed):
            raise InputError(f"{where}: {key}={content[key]!r} is not supported, only {allowed[0]}")
    if kind == "sequence_classification" and content.get("problem_type") == _SEVERAL_CLASSES:
        raise InputError(
            f"{where}: problem_type={_SEVERAL_CLASSES!r} is not supported: its outputs are a "
            "sigmoid for each class, any number of which may hold, and here one class holds"
        )


def _value(content: Mapping[str, Any], name: str, default: Any, where: Path) -> Any:
    value = content.get(name)
    if value is None:
        return default
    kind = type(default)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise InputError(f"{where}: {name}={value!r} must be of type {kind.__name__}")
    return kind(value)


def _choice(
    content: Mapping[str, Any], name: str, default: str, allowed: tuple[str, ...], where: Path
) -> str:
    value = _value(content, name, default, where)
    if value not in allowed:
        raise InputError(
            f"{where}: {name}={value!r} is not supported; the nearest is "
            f"{nearest(value, allowed)!r} of {', '.join(allowed)}"
        )
    return value


def _mobilebert(content: Mapping[str, Any], where: Path) -> dict[str, Any]:
    use_bottleneck = _value(content, "use_bottleneck", True, where)
    width = ("intra_bottleneck_size", 128) if use_bottleneck else ("hidden_size", 512)
    query_key: QueryKeySource = "block_input"
    if use_bottleneck and _value(content, "use_bottleneck_attention", False, where):
        query_key = "bottleneck_input"
    elif use_bottleneck and _value(content, "key_query_shared_bottleneck", True, where):
        query_key = "shared_bottleneck"
    norms = typing.get_args(Norm)
    return {
        "use_bottleneck": use_bottleneck,
        "intra_bottleneck_size": _value(content, *width, where),
        "query_key": query_key,
        "normalization_type": _choice(content, "normalization_type", "no_norm", norms, where),
        "pooler": _value(content, "classifier_activation", True, where),
    }


def _bert(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "use_bottleneck": False,
        "intra_bottleneck_size": values["hidden_size"],
        "embedding_size": values.get("embedding_size", values["hidden_size"]),
        "num_feedforward_networks": 1,
        "trigram_input": False,
        "query_key": "block_input",
        "normalization_type": "layer_norm",
        "pooler": True,
    }


def _labels(content: Mapping[str, Any], where: Path) -> tuple[int | None, tuple[str, ...]]:
    """Returns the number of outputs, None where it is not said, and their names, none where they
    are made up."""
    by_id = content.get("id2label")
    if by_id is None:
        for name in ("num_labels", "_num_labels"):
            if content.get(name) is not None:
                return _value(content, name, 0, where), ()
        return None, ()
    if not isinstance(by_id, dict) or set(by_id) != {str(i) for i in range(len(by_id))}:
        raise InputError(f'{where}: "id2label" must name each of 0, 1, 2, ... once, not {by_id!r}')
    labels = tuple(str(by_id[str(i)]) for i in range(len(by_id)))
    if len(set(labels)) != len(labels):
        raise InputError(f'{where}: the names in "id2label" must be different, not {labels}')
    made_up = numbered_labels(len(by_id))
    return len(labels), () if labels == made_up else labels
