"""What each training stage of the paper is: objective, optimiser, steps, data, starting point.

    teacher    masked-LM and next-sentence pretraining of IB-BERT
    transfer   the student's blocks learn the teacher's features and attention, layer by layer
    distill    the whole student learns words from the text and from the teacher
    control    the same start, data, steps and distillation without layer-wise transfer
    baseline       the student's network on the student's data without any teacher, for comparison

Student, control and baseline read the same stream: distillation goes on where transfer stopped.
"""

import dataclasses
from collections.abc import Sequence

import jax

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import Config, ModelConfig
from mobilebert_jax.config.stage_settings import phase_steps, settle, student_steps, transfer_steps
from mobilebert_jax.data.feed import Feed
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.data.pretraining import Documents
from mobilebert_jax.model.attention import separable
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective import distill, initialize, pretrain, transfer
from mobilebert_jax.objective.loss_terms import Params
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import Optimizer, build
from mobilebert_jax.optimizer.trainable import Part
from mobilebert_jax.pipeline.flops import step_flops
from mobilebert_jax.sharding import rules
from mobilebert_jax.sharding.cpu_features import uses_bfloat16_matmuls
from mobilebert_jax.train import Phase, Training
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout

TEACHER_STREAM, STUDENT_STREAM = 0, 1
"""Numbers that separate the random streams (initial parameters, data order) of one seed."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all training stages of a run share: config, devices, training documents."""

    config: Config
    layout: Layout
    documents: Sequence[Documents]
    vocabulary: Vocabulary

    @property
    def settled(self) -> Config:
        """The configuration with the vocabulary sizes that the tokenizer gave."""
        return settle(self.config, self.vocabulary.size)

    def network(self, model: ModelConfig, stage: str = "evaluate") -> Network:
        """Returns `model` with its vocabulary settled, and how `stage` computes it.

        Only training rounds what it multiplies or fuses attention, for speed; what is reported of a
        network is exact.
        """
        model = dataclasses.replace(model, vocab_size=model.vocab_size or self.vocabulary.size)
        execution, trains = self.config.execution, stage != "evaluate"
        return Network(
            model,
            self.config.precision,
            execution.remat_of(stage),
            execution.unroll_of(stage),
            bfloat16_matmuls=trains and uses_bfloat16_matmuls(self.config, self.layout.mesh),
            attention_implementation=execution.attention_implementation if trains else "xla",
            wide=self.layout.mesh.shape["model"] == 1 and separable(model),
        )

    def watched_teacher(self, stage: str) -> Network:
        """Returns the teacher as `stage`, whose student learns from it, computes it."""
        network = self.network(self.config.teacher.model, stage)
        return dataclasses.replace(network, unroll=self.config.execution.teacher_scan_unroll)

    def feed(self, batch_size: int, stream: int) -> Feed:
        return Feed(
            self.documents,
            self.vocabulary,
            self.config.data,
            batch_size=batch_size,
            seed=2 * self.config.seed + stream,
            rows=rules.rows_of_process(self.layout.mesh, batch_size),
        )

    def initial(self, model: ModelConfig, stream: int) -> Params:
        return state_lib.init_params(self.network(model), self.layout, self.config.seed, stream)


def teacher_training(setting: Setting) -> Training:
    """IB-BERT from scratch, with dropout (paper section 4.2)."""
    teacher = setting.config.teacher
    net = setting.network(teacher.model, "teacher")
    return Training(
        name="teacher",
        network=net,
        initial=lambda: setting.initial(teacher.model, TEACHER_STREAM),
        teacher=None,
        optimizer=_optimizer(teacher.optimizer, teacher.steps, teacher.model),
        phases=(
            Phase(
                "teacher",
                0,
                teacher.steps,
                pretrain.objective(net, dropout=True),
                step_flops(setting.settled, "teacher"),
            ),
        ),
        feed=setting.feed(teacher.batch_size, TEACHER_STREAM),
    )


def transfer_training(setting: Setting, teacher_params: Params) -> Training:
    """The student's blocks from the teacher's, one after the other or all at once."""
    config, settings = setting.config, setting.config.transfer
    steps, layers = transfer_steps(config), config.student.num_hidden_layers
    student = setting.network(config.student, "transfer")
    teacher = setting.watched_teacher("transfer")
    if settings.strategy == "progressive":
        phases = _progressive_phases(setting.settled, student, teacher)
        optimizer = build(
            settings.optimizer,
            schedules.base_rate(settings.optimizer, steps),
            schedules.progressive(steps, layers, settings.lower_layer_lr_scale),
            restart_every=phase_steps(steps, layers),
        )
    else:
        objective = transfer.joint_objective(student, teacher, settings)
        flops = step_flops(setting.settled, "transfer")
        phases = (Phase("all layers", 0, steps, objective, flops, part=Part(blocks=(0, layers))),)
        optimizer = build(
            settings.optimizer,
            schedules.base_rate(settings.optimizer, steps),
            schedules.uniform(layers, others=0.0),
        )
    return Training(
        name="transfer",
        network=student,
        initial=lambda: _taught_start(setting, teacher_params),
        teacher=teacher_params,
        optimizer=optimizer,
        phases=phases,
        feed=setting.feed(settings.batch_size, STUDENT_STREAM),
    )


def _progressive_phases(config: Config, student: Network, teacher: Network) -> tuple[Phase, ...]:
    """One phase a layer, cut where the schedule cuts: step l T still belongs to layer l - 1."""
    length = phase_steps(config.transfer.steps, config.student.num_hidden_layers)
    borders = [0, *(length * (layer + 1) + 1 for layer in range(config.student.num_hidden_layers))]
    borders[-1] = transfer_steps(config)
    return tuple(
        Phase(
            label=f"layer {layer}",
            start=borders[layer],
            stop=borders[layer + 1],
            objective=transfer.objective(student, teacher, config.transfer, layer),
            flops=step_flops(config, "transfer", layer),
            metrics={"layer": float(layer)},
            part=Part(blocks=(0 if config.transfer.lower_layer_lr_scale else layer, layer + 1)),
        )
        for layer in range(config.student.num_hidden_layers)
    )


def distill_training(
    setting: Setting, teacher_params: Params, student_params: Params | None
) -> Training:
    """The whole student from words and teacher; under `auxiliary` the transfer losses join in."""
    config, settings = setting.config, setting.config.distill
    student = setting.network(config.student, "distill")
    teacher = setting.watched_teacher("distill")
    if config.transfer.strategy == "auxiliary":
        objective = distill.auxiliary_objective(student, teacher, settings, config.transfer)
        steps, offset = student_steps(config), 0
    else:
        objective = distill.objective(student, teacher, settings)
        steps, offset = settings.steps, transfer_steps(config)
    return Training(
        name="distill",
        network=student,
        initial=lambda: student_params or _taught_start(setting, teacher_params),
        teacher=teacher_params,
        optimizer=_optimizer(settings.optimizer, steps, config.student),
        phases=(Phase("distill", 0, steps, objective, step_flops(setting.settled, "distill")),),
        feed=setting.feed(settings.batch_size, STUDENT_STREAM),
        feed_offset=offset,
    )


def control_training(setting: Setting, teacher_params: Params) -> Training:
    """The student's start, data, number of steps and distillation, without layer-wise transfer.

    What the student is ahead of it is what layer-wise transfer gained.
    """
    config = setting.config
    without = dataclasses.replace(
        config,
        transfer=dataclasses.replace(config.transfer, strategy="none"),
        distill=dataclasses.replace(config.distill, steps=student_steps(config)),
    )
    training = distill_training(dataclasses.replace(setting, config=without), teacher_params, None)
    phases = tuple(phase._replace(label="control") for phase in training.phases)
    return training._replace(name="control", phases=phases)


def baseline_training(setting: Setting) -> Training:
    """The student's network, data and number of steps, on true words alone, without dropout."""
    config, settings = setting.config, setting.config.distill
    student, steps = setting.network(config.student, "baseline"), student_steps(setting.config)
    return Training(
        name="baseline",
        network=student,
        initial=lambda: setting.initial(config.student, STUDENT_STREAM),
        teacher=None,
        optimizer=_optimizer(settings.optimizer, steps, config.student),
        phases=(
            Phase(
                "baseline",
                0,
                steps,
                pretrain.objective(student, dropout=False),
                step_flops(setting.settled, "baseline"),
            ),
        ),
        feed=setting.feed(settings.batch_size, STUDENT_STREAM),
    )


def _optimizer(settings: schema.Optimizer, steps: int, model: ModelConfig) -> Optimizer:
    return build(
        settings, schedules.base_rate(settings, steps), schedules.uniform(model.num_hidden_layers)
    )


def _taught_start(setting: Setting, teacher_params: Params) -> Params:
    student = setting.initial(setting.config.student, STUDENT_STREAM)
    if not setting.config.transfer.copy_embeddings:
        return student
    copied = initialize.from_teacher(student, teacher_params)
    # The teacher may lie whole where the student is cut. The state is donated to the step: the
    # student must not share buffers with the teacher.
    return jax.tree.map(lambda x, own: jax.device_put(x, own.sharding).copy(), copied, student)
