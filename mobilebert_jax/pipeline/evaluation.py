"""The stage `evaluate`: metrics of all networks of a run on the same held-out documents."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mobilebert_jax.config.schema import Config
from mobilebert_jax.data.pretraining import Documents
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.model import sizes
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.loss_terms import Params
from mobilebert_jax.sharding.global_batch import to_devices
from mobilebert_jax.training import evaluate, introspection

STUDENT_ROLES = {
    "progressive": "student: layer-wise transfer, then distillation",
    "joint": "student: transfer of all layers at once, then distillation",
    "auxiliary": "student: transfer and distillation together",
    "none": "student: distillation only",
}


def measure(
    config: Config,
    models: Mapping[str, tuple[Network, Params]],
    tokenizer: Tokenizer,
    training: Sequence[Documents],
    held_out: Sequence[Documents],
    mesh: jax.sharding.Mesh,
) -> dict[str, Any]:
    """Returns every figure of the report that has to be computed, by role of the network."""
    feed, batches = evaluate.held_out_feed(config, tokenizer, held_out, mesh)
    whole_feed, _ = evaluate.held_out_feed(config, tokenizer, held_out, None)
    metrics: dict[str, Any] = {
        "examples": batches * config.evaluate.batch_size,
        "unigram": evaluate.unigram_scores(training, whole_feed, batches, tokenizer.size),
        "models": {},
        "feature_rms": {},
    }
    sentence = introspection.one_sentence(
        tokenizer, config.evaluate.fill_mask_text, config.data.max_seq_length
    )
    maps, guesses = {}, {}
    roles = {
        "teacher": "teacher",
        "student": STUDENT_ROLES[config.transfer.strategy],
        "control": "the same without layer-wise transfer",
        "baseline": "the same network from scratch",
    }
    for role, (network, params) in models.items():
        metrics["models"][role] = {
            "role": roles[role],
            **size_metrics(network.config, config.data.max_seq_length),
            **evaluate.with_attention_worth(network, feed, batches, mesh)(params),
        }
        metrics["feature_rms"][role] = introspection.feature_rms(
            network, params, to_devices(feed, feed[0], mesh)
        )
        guesses[role] = introspection.fill_mask(network, params, sentence, tokenizer)
        if role in ("teacher", "student"):
            maps[role] = introspection.attention_maps(network, params, sentence).round(4).tolist()
    pieces = tokenizer.pieces(sentence["input_ids"][0].tolist())
    metrics["attention"] = {"pieces": pieces, **maps}
    metrics["fill_mask"] = {"sentence": config.evaluate.fill_mask_text, "models": guesses}
    return metrics


def size_metrics(model: sizes.ModelConfig, length: int) -> dict[str, Any]:
    """Returns parameter counts, size in megabytes (10^6 bytes) and forward GFLOPs a sequence."""
    parameters = sizes.pretraining_parameters(model)
    return {
        "parameters": parameters,
        "encoder_parameters": sizes.encoder_parameters(model),
        "megabytes_float32": parameters * 4 / 1e6,
        "forward_gflops": sizes.forward_flops(model, length) / 1e9,
    }
