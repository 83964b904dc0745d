"""One step of each kind of stage, on any mesh, for two small networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mobilebert_jax.config import schema
from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective import distill, pretrain, transfer
from mobilebert_jax.objective.loss_terms import Objective
from mobilebert_jax.optimizer import schedules
from mobilebert_jax.optimizer.build import build
from mobilebert_jax.sharding import rules
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout, State
from mobilebert_jax.training.step import make_step
from tests import tiny

SETTINGS = schema.Optimizer(warmup_steps=0, decay="linear", peak_learning_rate=0.01)
OPTIMIZER = build(SETTINGS, schedules.base_rate(SETTINGS, 20), schedules.uniform(tiny.LAYERS))

STAGES: dict[str, tuple[Network, Objective, bool]] = {
    "teacher": (tiny.TEACHER, pretrain.objective(tiny.TEACHER, dropout=True), False),
    "transfer": (
        tiny.STUDENT,
        transfer.objective(tiny.STUDENT, tiny.TEACHER, schema.Transfer(), 1),
        True,
    ),
    "distill": (
        tiny.STUDENT,
        distill.objective(tiny.STUDENT, tiny.TEACHER, schema.Distill()),
        True,
    ),
    "baseline": (tiny.STUDENT, pretrain.objective(tiny.STUDENT, dropout=False), False),
}
"""Network that is trained, objective, and whether a teacher is needed."""


def layout_of(mesh: str, fsdp_shard: str = "params_and_optimizer") -> Layout:
    """Returns the layout of a mesh such as "2x2x2", on as many of the simulated devices."""
    sizes = [int(size) for size in mesh.split("x")]
    devices = jax.devices()[: int(np.prod(sizes))]
    return Layout(make_mesh(Mesh(*sizes), devices), fsdp_shard)


def arguments(stage: str, layout: Layout) -> tuple[State, Any, dict[str, jax.Array], jax.Array]:
    """Returns state, teacher, batch and key of the first step, where they belong."""
    network, _, needs_teacher = STAGES[stage]
    own = tiny.teacher_params() if network is tiny.TEACHER else tiny.student_params()
    state = state_lib.start(tiny.on_mesh(own, network, layout), network, OPTIMIZER, layout)
    teacher = tiny.on_mesh(tiny.teacher_params(), tiny.TEACHER, layout) if needs_teacher else None
    batch = jax.device_put(tiny.batch(), rules.batch_sharding(layout.mesh))
    key = jax.device_put(jax.random.key(0), rules.replicated(layout.mesh))
    return state, teacher, batch, key


def compiled(stage: str, layout: Layout, given: Any) -> Any:
    """Returns the compiled step of `stage`, made as the train loop makes it."""
    shardings = state_lib.shardings_of(given[0])
    gathered = state_lib.gathering(STAGES[stage][0], layout)
    moments = state_lib.shardings_of(state_lib.abstract_moment(STAGES[stage][0], layout))
    step = make_step(STAGES[stage][1], OPTIMIZER, 1, moments, gathered=gathered)
    jitted = tiny.jit(step, donate_argnums=0, out_shardings=(shardings, None))
    with rules.on(layout.mesh):
        return jitted.lower(*given).compile()


def ten_losses(stage: str, layout: Layout) -> tuple[list[float], State]:
    """Returns the losses of ten steps, and the state after them."""
    given = arguments(stage, layout)
    step = compiled(stage, layout, given)
    state, losses = given[0], []
    for _ in range(10):
        state, metrics = step(state, *given[1:])
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 10
    assert jnp.isfinite(jnp.asarray(losses)).all()
    return losses, state
