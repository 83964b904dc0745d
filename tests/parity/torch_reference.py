"""Runs Hugging Face's PyTorch MobileBERT, BERT and SqueezeBERT on our parameters.

Needs torch, no network.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers

from mobilebert_jax.interop import parameter_names
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig
from tests.parity.cases import Results

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu6": "relu6",
}


def build(config: ModelConfig, attention: str = "eager") -> torch.nn.Module:
    """Returns the PyTorch network of these settings in evaluation mode, with random weights."""
    shared = {
        "vocab_size": config.vocab_size,
        "type_vocab_size": config.type_vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "hidden_act": _ACTIVATIONS[config.hidden_act],
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "attention_probs_dropout_prob": config.attention_probs_dropout_prob,
        "layer_norm_eps": 1e-12,
    }
    if sizes.has_groups(config):  # of which there is the eager form alone
        groups = {name: layer.groups for name, layer in sizes.grouped_layers(config).items()}
        model = _SqueezeBertForPreTraining(
            transformers.SqueezeBertConfig(**shared, **groups, embedding_size=config.embedding_size)
        )
        _repair(model, config)
        return model.eval()
    shared["attn_implementation"] = attention
    if config.use_bottleneck:
        model = transformers.MobileBertForPreTraining(
            transformers.MobileBertConfig(
                **shared,
                embedding_size=config.embedding_size,
                intra_bottleneck_size=config.intra_bottleneck_size,
                num_feedforward_networks=config.num_feedforward_networks,
                normalization_type=config.normalization_type,
                trigram_input=config.trigram_input,
                use_bottleneck=True,
                use_bottleneck_attention=config.query_key == "bottleneck_input",
                key_query_shared_bottleneck=config.query_key == "shared_bottleneck",
                classifier_activation=config.pooler,
            )
        )
    else:
        model = transformers.BertForPreTraining(transformers.BertConfig(**shared))
    _repair(model, config)
    return model.eval()


class _SqueezeBertForPreTraining(transformers.SqueezeBertForMaskedLM):
    """With the head of next sentence that BERT has and the port of SqueezeBERT lacks."""

    def __init__(self, config: transformers.SqueezeBertConfig) -> None:
        super().__init__(config)
        self.cls.seq_relationship = torch.nn.Linear(config.hidden_size, 2)

    def forward(
        self, labels: torch.Tensor, next_sentence_label: torch.Tensor, **inputs: Any
    ) -> SimpleNamespace:
        encoded = self.transformer(**inputs)
        masked_lm = self.cls(encoded.last_hidden_state)
        next_sentence = self.cls.seq_relationship(encoded.pooler_output)
        cross_entropy = torch.nn.functional.cross_entropy
        loss = cross_entropy(masked_lm.flatten(0, 1), labels.flatten())
        return SimpleNamespace(
            loss=loss + cross_entropy(next_sentence, next_sentence_label),
            prediction_logits=masked_lm,
            seq_relationship_logits=next_sentence,
            hidden_states=encoded.hidden_states,
            # The port gives scores where its siblings give probabilities.
            attentions=[torch.softmax(scores, -1) for scores in encoded.attentions],
        )


def _repair(model: torch.nn.Module, config: ModelConfig) -> None:
    """Undoes the port's departures from the authors' code."""
    for module in model.modules():
        # The port leaves the embedding norm and each block's last feed-forward norm at PyTorch's
        # default of 1e-5; the authors use 1e-12 everywhere.
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-12
        # A padding index cuts the gradient that the row of the padding token gets as an input.
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None
    if config.use_bottleneck and config.query_key == "block_input":
        # The port gives these two the width of a bottleneck that this form does not have.
        for layer in model.mobilebert.encoder.layer:
            layer.attention.self.query = torch.nn.Linear(
                config.hidden_size, config.intra_bottleneck_size
            )
            layer.attention.self.key = torch.nn.Linear(
                config.hidden_size, config.intra_bottleneck_size
            )


def state_dict(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns every tensor of the PyTorch network, tied ones too, from our parameters."""
    state = parameter_names.to_tensors(config, "pretraining", "huggingface", params)
    tied = parameter_names.tied(config, "pretraining")
    return state | {name: state[source] for name, source in tied.items()}


def load(model: torch.nn.Module, config: ModelConfig, params: Mapping[str, Any]) -> None:
    """Copies our parameters into `model`; raises if a tensor is missing, unknown or misshapen."""
    state = state_dict(config, params)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})


def labels_at_positions(batch: Mapping[str, np.ndarray]) -> torch.Tensor:
    """Returns [B, T] labels, -100 (ignored by PyTorch's loss) where nothing is predicted."""
    labels_BT = np.full(batch["input_ids"].shape, -100, np.int64)
    np.put_along_axis(
        labels_BT, batch["masked_lm_positions"].astype(np.int64), batch["masked_lm_ids"], axis=1
    )
    return torch.from_numpy(labels_BT)


def their_results(
    config: ModelConfig, params: Mapping[str, Any], batch: Mapping[str, np.ndarray]
) -> Results:
    """Returns what the PyTorch network computes from the same parameters and batch."""
    model = build(config)
    load(model, config, params)
    output = model(
        input_ids=torch.from_numpy(batch["input_ids"]).long(),
        attention_mask=torch.from_numpy(batch["input_mask"]).long(),
        token_type_ids=torch.from_numpy(batch["segment_ids"]).long(),
        labels=labels_at_positions(batch),
        next_sentence_label=torch.from_numpy(batch["next_sentence_labels"]).long(),
        output_hidden_states=True,
        output_attentions=True,
    )
    output.loss.backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    logits_BTV = output.prediction_logits.detach().numpy()
    return Results(
        hidden_states=torch.stack(output.hidden_states).detach().numpy(),
        attention=torch.stack(output.attentions).detach().numpy(),
        masked_lm=np.take_along_axis(
            logits_BTV, batch["masked_lm_positions"][..., None].astype(np.int64), axis=1
        ),
        next_sentence=output.seq_relationship_logits.detach().numpy(),
        loss=output.loss.detach().numpy(),
        gradients=parameter_names.to_params(config, "pretraining", "huggingface", gradients),
    )
