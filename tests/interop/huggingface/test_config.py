"""Hugging Face's config.json: what each key means, and what is refused with which words."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax.config.schema import InputError
from mobilebert_jax.interop.huggingface import config as huggingface_config
from mobilebert_jax.interop.model import Kind
from mobilebert_jax.model import sizes
from tests.interop import exchanged

WHERE = Path("folder/config.json")


@pytest.mark.parametrize(
    ("name", "kind"),
    [(n, k) for n in exchanged.CONFIGS for k in exchanged.LABELS if exchanged.is_expressed(n, k)],
)
def test_settings_come_back(name: str, kind: Kind) -> None:
    config, labels = exchanged.CONFIGS[name], exchanged.LABELS[kind]
    content = huggingface_config.make(config, kind, labels, len(labels), 0)
    found = huggingface_config.parse(content, WHERE)
    pooled = found.config.pooler if kind in huggingface_config.POOLED else config.pooler
    same = dataclasses.replace(
        found.config, trigram_masks_padding=config.trigram_masks_padding, pooler=pooled
    )
    assert same == config
    assert found.kind == kind and not found.config.trigram_masks_padding
    if kind in ("sequence_classification", "token_classification"):
        assert (found.labels, found.outputs) == (labels, len(labels))


def test_the_keys_of_the_released_network() -> None:
    content = huggingface_config.make(sizes.MOBILEBERT, "question_answering", (), 2, 0)
    assert content == {
        "architectures": ["MobileBertForQuestionAnswering"],
        "attention_probs_dropout_prob": 0.1,
        "classifier_activation": False,
        "classifier_dropout": 0.1,
        "embedding_size": 128,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 512,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "intra_bottleneck_size": 128,
        "key_query_shared_bottleneck": True,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "mobilebert",
        "normalization_type": "no_norm",
        "num_attention_heads": 4,
        "num_feedforward_networks": 4,
        "num_hidden_layers": 24,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "trigram_input": True,
        "true_hidden_size": 128,
        "type_vocab_size": 2,
        "use_bottleneck": True,
        "use_bottleneck_attention": False,
        "vocab_size": 30522,
    }


def test_the_keys_of_the_released_squeezebert() -> None:
    content = huggingface_config.make(sizes.SQUEEZEBERT, "masked_lm", (), 0, 0)
    assert content == {
        "architectures": ["SqueezeBertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "embedding_size": 768,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 768,
        "initializer_range": 0.02,
        "intermediate_groups": 4,
        "intermediate_size": 3072,
        "k_groups": 4,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "squeezebert",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "output_groups": 4,
        "pad_token_id": 0,
        "post_attention_groups": 1,
        "q_groups": 4,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "type_vocab_size": 2,
        "v_groups": 4,
        "vocab_size": 30522,
    }


def test_a_config_without_model_type_is_known_by_its_keys() -> None:
    for config in (sizes.MOBILEBERT, sizes.BERT_BASE, sizes.SQUEEZEBERT):
        content = huggingface_config.make(config, "bare", (), 0, 0)
        left = {k: v for k, v in content.items() if k not in ("model_type", "architectures")}
        assert huggingface_config.parse(left, WHERE).model_type == content["model_type"]


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("mobilebert", dataclasses.replace(sizes.MOBILEBERT, pooler=True)),
        ("bert", dataclasses.replace(sizes.BERT_BASE, hidden_act="gelu")),
        ("squeezebert", sizes.SQUEEZEBERT),
    ],
)
def test_keys_that_are_lacking_have_the_defaults_of_transformers(
    model_type: str, expected: sizes.ModelConfig
) -> None:
    found = huggingface_config.parse({"model_type": model_type, "pad_token_id": None}, WHERE)
    assert found.config == dataclasses.replace(expected, trigram_masks_padding=False)
    assert (found.kind, found.outputs, found.labels) == (None, None, ())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("gelu", "gelu"),
        ("gelu_new", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("gelu_fast", "gelu_tanh"),
        ("relu", "relu"),
        ("relu6", "relu6"),
    ],
)
def test_activations(theirs: str, ours: str) -> None:
    content = {"model_type": "bert", "hidden_act": theirs}
    assert huggingface_config.parse(content, WHERE).config.hidden_act == ours


def test_classes_and_numbers() -> None:
    config = exchanged.CONFIGS["released"]
    content = huggingface_config.make(config, "sequence_classification", (), 1, 0)
    assert content["problem_type"] == "regression"
    assert content["id2label"] == {"0": "LABEL_0"}
    found = huggingface_config.parse(content, WHERE)
    assert (found.outputs, found.labels) == (1, ())
    content = huggingface_config.make(config, "sequence_classification", ("no", "yes"), 2, 0)
    assert content["label2id"] == {"no": 0, "yes": 1}
    assert "problem_type" not in content
    many = {str(i): f"tag {i}" for i in reversed(range(12))}
    found = huggingface_config.parse({"model_type": "bert", "id2label": many}, WHERE)
    assert found.labels == tuple(f"tag {i}" for i in range(12))


MOBILE: dict[str, Any] = {"model_type": "mobilebert"}
SQUEEZE: dict[str, Any] = {"model_type": "squeezebert"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"model_type": "distilbert"},
            "'distilbert' is not read; read are those of MobileBert, Bert and SqueezeBert with",
        ),
        ({"architectures": ["RobertaModel"]}, r"'RobertaModel' is not read; read are [^;]*$"),
        (
            {"architectures": ["SqueezeBertForPreTraining"]},
            r"SqueezeBertForPreTraining' is not read; .* without .* and ForPreTraining\)",
        ),
        (
            {"model_type": "bert", "architectures": ["SqueezeBertModel"]},
            "model_type 'bert' has no architecture SqueezeBertModel",
        ),
        (SQUEEZE | {"q_groups": 5}, "q_groups=5 does not divide the 768 inputs and 768 outputs"),
        (SQUEEZE | {"v_groups": 0}, "v_groups=0 must be from 1 to 1,000; the nearest is 1"),
        (SQUEEZE | {"k_groups": 4.0}, r"k_groups=4\.0 must be of type int"),
        (SQUEEZE | {"embedding_size": 128}, "embedding_size equal to hidden_size=768, not 128"),
        (
            SQUEEZE | {f"{name}_groups": 1 for name in ("q", "k", "v", "intermediate", "output")},
            "nothing of SqueezeBERT .* is a BERT; save .* BertConfig",
        ),
        (MOBILE | {"architectures": "MobileBertModel"}, "must be a list with one name"),
        (
            MOBILE | {"architectures": ["MobileBertForMaskLM"]},
            "MobileBertForMaskLM' is not .*nearest is MobileBertForMaskedLM",
        ),
        (
            {"model_type": "bert", "architectures": ["BertLMHeadModel"]},
            r"'BertLMHeadModel' is not read; read are [^;]*$",
        ),
        (MOBILE | {"architectures": ["BertModel"]}, "model_type 'mobilebert' has no .*BertModel"),
        (MOBILE | {"hidden_act": "silu"}, "hidden_act='silu' .*nearest is .*gelu, gelu_new"),
        (MOBILE | {"hidden_act": 3}, "hidden_act=3 must be of type str"),
        (MOBILE | {"normalization_type": "nonorm"}, "normalization_type.*nearest is 'no_norm'"),
        (MOBILE | {"hidden_size": "512"}, "hidden_size='512' must be of type int"),
        (MOBILE | {"hidden_size": True}, "hidden_size=True must be of type int"),
        (MOBILE | {"use_bottleneck": 1}, "use_bottleneck=1 must be of type bool"),
        (MOBILE | {"num_hidden_layers": 0}, "layers=0 must be from 1 to"),
        (MOBILE | {"num_attention_heads": 5}, "heads=5 does not divide intra_bottleneck_size=128"),
        (MOBILE | {"vocab_size": 0}, "vocab_size=0 must be at least 1"),
        (
            MOBILE | {"trigram_input": False},
            "trigram_input=False needs embedding_size equal to hidden_size=512",
        ),
        (MOBILE | {"layer_norm_eps": 1e-5}, "layer_norm_eps=1e-05 is not supported, only 1e-12"),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder=True is not supported"),
        (
            {"model_type": "bert", "position_embedding_type": "relative_key"},
            "position_embedding_type='relative_key' is not supported, only absolute",
        ),
        (MOBILE | {"id2label": {"0": "a", "2": "b"}}, "id2label.*0, 1, 2"),
        (MOBILE | {"id2label": ["a"]}, "id2label.*0, 1, 2"),
        (MOBILE | {"id2label": {"0": "a", "1": "a"}}, "must be different, not .'a', 'a'"),
        (
            {
                "architectures": ["BertForSequenceClassification"],
                "problem_type": "multi_label_classification",
            },
            "problem_type='multi_label_classification' is not supported: .* sigmoid",
        ),
        ({"model_type": [1]}, r"model_type \[1\] is not read"),
        (MOBILE | {"initializer_range": float("nan")}, "initializer_range=nan must be from"),
        (MOBILE | {"vocab_size": 10**12}, "vocab_size=1000000000000 must be from 0 to"),
        (
            MOBILE
            | {
                "use_bottleneck": False,
                "trigram_input": False,
                "num_feedforward_networks": 1,
                "normalization_type": "layer_norm",
                "embedding_size": 512,
            },
            "nothing of MobileBERT .* is a BERT; save .* BertConfig",
        ),
    ],
)
def test_what_is_not_supported_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"folder/config\.json: .*{message}"):
        huggingface_config.parse(content, WHERE)
