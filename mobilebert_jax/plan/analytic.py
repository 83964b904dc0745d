"""What a step holds, moves and sends, estimated from the configuration without a compiler.

For hardware whose compiler does not run here, and to choose which settings are worth compiling.
Rough where it counts activations; exact where it counts parameters.
"""

import dataclasses
import math

from mobilebert_jax.config.execution import Remat
from mobilebert_jax.config.schema import Config, ModelConfig
from mobilebert_jax.model import sizes
from mobilebert_jax.pipeline import flops
from mobilebert_jax.plan.collectives import Collective
from mobilebert_jax.plan.compiled import Compiled, Memory
from mobilebert_jax.plan.hlo import Array

FLOAT = 4.0
_WIDTH = {"float32": 4.0, "bfloat16": 2.0}


@dataclasses.dataclass(frozen=True)
class Cut:
    """Devices along each axis of the mesh."""

    data: int
    fsdp: int
    model: int

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.model


def estimate(config: Config, cut: Cut, stage: str, layer: int | None) -> Compiled:
    """Returns the estimated needs of one device for a step of `stage` (of that phase, if any)."""
    trained = config.teacher.model if stage == "teacher" else config.student
    taught = config.teacher.model if stage in ("transfer", "distill") else None
    cuts_parameters = config.execution.fsdp_shard == "params_and_optimizer"
    held = FLOAT * sizes.pretraining_parameters(trained) / cut.model
    piece = held / cut.fsdp
    stored = held if config.execution.fsdp_shard == "optimizer_only" else piece
    # What a step computes with: its own copy where it begins by gathering the stored pieces.
    parameters = piece if cuts_parameters else held
    gathers = config.execution.fsdp_shard == "params_gathered_once"
    gathered = held * _WIDTH[config.precision] / FLOAT if gathers else 0.0
    teacher = FLOAT * sizes.pretraining_parameters(taught) / cut.model if taught else 0.0
    teacher /= cut.fsdp if cuts_parameters else 1
    rows = flops.batch_size(config, stage) / (cut.data * cut.fsdp)
    batch = (
        rows * (3 * config.data.max_seq_length + 3 * config.data.max_predictions_per_seq + 1) * 4
    )
    layers = trained.num_hidden_layers if layer is None else layer + 1
    remat, parts = config.execution.remat_of(stage), config.execution.micro_batches
    activations = _activations(config, trained, remat, rows / parts, layers, cut)
    gradients = parameters if config.execution.micro_batches == 1 else 2 * parameters
    temporaries = gathered + gradients + activations
    memory = Memory(stored, 2 * piece, teacher, batch, temporaries)
    passes = config.execution.micro_batches
    block = _block_bytes(config, trained, cut) * rows * config.data.max_seq_length
    traffic = (
        passes * (2 * (gathered or parameters) + teacher)
        + 3 * stored
        + 4 * piece
        + 3 * block * layers
        + (
            _block_bytes(config, taught, cut) * rows * config.data.max_seq_length * layers
            if taught
            else 0
        )
    )
    return Compiled(
        memory,
        fits=True,
        collectives=tuple(_messages(config, cut, held, teacher)),
        traffic=traffic,
        source="estimated",
    )


def _activations(
    config: Config, model: ModelConfig, remat: Remat, rows: float, layers: int, cut: Cut
) -> float:
    """Bytes kept for the backward pass, the block being recomputed, and the masked-LM logits."""
    tokens, width = rows * config.data.max_seq_length, _WIDTH[config.precision]
    inside = _block_bytes(config, model, cut)
    scores = (
        model.num_attention_heads
        / min(cut.model, model.num_attention_heads)
        * config.data.max_seq_length
        * (FLOAT + width)
    )
    feedforward = model.intermediate_size / cut.model + model.intra_bottleneck_size
    kept = {
        "none": inside,
        "dots": inside - scores,
        "feedforward": width * (model.hidden_size + model.num_feedforward_networks * feedforward),
        "full": width * model.hidden_size,
    }[remat]
    recomputed = 0.0 if remat == "none" else inside
    logits = 3 * FLOAT * rows * config.data.max_predictions_per_seq * model.vocab_size / cut.model
    return tokens * (layers * kept + recomputed) + logits


def _block_bytes(config: Config, model: ModelConfig, cut: Cut) -> float:
    """Bytes of what one block computes for one token: projections, scores, feed-forwards."""
    width = _WIDTH[config.precision]
    values = 3.0 * model.hidden_size + 6 * model.intra_bottleneck_size
    values += model.num_feedforward_networks * (
        2 * model.intermediate_size / cut.model + 2 * model.intra_bottleneck_size
    )
    heads = model.num_attention_heads / math.gcd(cut.model, model.num_attention_heads)
    return width * values + heads * config.data.max_seq_length * (FLOAT + width)


def _messages(config: Config, cut: Cut, held: float, teacher: float) -> list[Collective]:
    """The messages that cutting parameters and batches asks for, of all parameters at once."""

    def message(kind: str, size: float, group: int, times: int) -> Collective:
        groups = tuple(tuple(range(first, first + group)) for first in range(0, cut.devices, group))
        return Collective(kind, (Array("f32", (int(size / FLOAT),)),), groups, times, True)

    found = []
    if cut.fsdp > 1:
        passes = config.execution.micro_batches
        if config.execution.fsdp_shard == "params_and_optimizer":
            found.append(message("all-gather", held, cut.fsdp, 2 * passes))
            if teacher:
                found.append(message("all-gather", teacher * cut.fsdp, cut.fsdp, passes))
        else:
            early = config.execution.fsdp_shard == "params_gathered_once"
            whole = held * _WIDTH[config.precision] / FLOAT if early else held
            found.append(message("all-gather", whole, cut.fsdp, 1))
    if cut.data * cut.fsdp > 1:
        found.append(message("all-reduce", held, cut.data * cut.fsdp, 1))
    return found
