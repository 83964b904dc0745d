"""Model FLOPs of one training step of each stage, from the configuration alone.

They are what the mathematics needs, whatever the machine does: recomputation, padding and the
optimiser do not count, and a backward pass counts twice its forward pass. Utilisation (MFU) and
plans are computed from them. As in the paper matmuls of the encoder count, the heads do
not.
"""

from mobilebert_jax.config.schema import Config
from mobilebert_jax.config.stage_settings import student_steps, transfer_steps
from mobilebert_jax.model import sizes

TRAINING_STAGES = ("teacher", "transfer", "distill", "control", "baseline")


def step_flops(config: Config, stage: str, layer: int | None = None) -> float:
    """Returns the FLOPs of one step of a training stage, over the whole batch.

    `layer` names the phase of progressive transfer; without it the mean over all phases is
    returned. Raises ValueError for a stage that does not train.
    """
    length = config.data.max_seq_length
    student = sizes.forward_flops(config.student, length)
    teacher = sizes.forward_flops(config.teacher.model, length)
    if stage == "teacher":
        sequence: float = 3 * teacher
    elif stage == "distill":
        watched = config.distill.asks_teacher or config.transfer.strategy == "auxiliary"
        sequence = 3 * student + (teacher if watched else 0)
    elif stage == "control":
        sequence = 3 * student + (teacher if config.distill.asks_teacher else 0)
    elif stage == "baseline":
        sequence = 3 * student
    elif stage == "transfer":
        sequence = _transfer_sequence(config, layer)
    else:
        raise ValueError(f"{stage!r} is not one of {TRAINING_STAGES}")
    return float(sequence * batch_size(config, stage))


def _transfer_sequence(config: Config, layer: int | None) -> float:
    """FLOPs of one sequence: in the phase of layer l only blocks 0 to l of both networks run."""
    length, layers = config.data.max_seq_length, config.student.num_hidden_layers
    if config.transfer.strategy != "progressive":
        teacher = sizes.forward_flops(config.teacher.model, length)
        return 3 * sizes.forward_flops(config.student, length) + teacher
    if layer is None:
        return sum(_transfer_sequence(config, index) for index in range(layers)) / layers
    depth = None if config.transfer.statistics_of_all_teacher_layers else layer + 1
    teacher = sizes.forward_flops(config.teacher.model, length, layers=depth)
    forward = sizes.forward_flops(config.student, length, layers=layer + 1)
    if config.transfer.lower_layer_lr_scale == 0:
        # Everything below the active block is frozen, so the backward pass ends there.
        below = sizes.forward_flops(config.student, length, layers=layer)
        return forward + 2 * (forward - below) + teacher
    return 3 * forward + teacher


def stage_flops(config: Config, stage: str) -> float:
    """Returns the FLOPs of all steps of a training stage."""
    return step_flops(config, stage) * steps(config, stage)


def steps(config: Config, stage: str) -> int:
    """Returns the number of steps of a training stage under the configured strategy."""
    auxiliary = config.transfer.strategy == "auxiliary"
    return {
        "teacher": config.teacher.steps,
        "transfer": 0 if auxiliary else transfer_steps(config),
        "distill": student_steps(config) if auxiliary else config.distill.steps,
        "control": student_steps(config),
        "baseline": student_steps(config),
    }[stage]


def batch_size(config: Config, stage: str) -> int:
    """Returns the sequences of one global batch; control and baseline have distillation's."""
    return {
        "teacher": config.teacher.batch_size,
        "transfer": config.transfer.batch_size,
        "distill": config.distill.batch_size,
        "control": config.distill.batch_size,
        "baseline": config.distill.batch_size,
    }[stage]
