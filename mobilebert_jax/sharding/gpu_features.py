"""What the GPUs of a mesh can do that settings alone do not tell."""

from collections.abc import Iterable
from typing import Any

import jax

from mobilebert_jax.config import fused_attention
from mobilebert_jax.config.execution import Execution
from mobilebert_jax.config.schema import InputError, ModelConfig

AMPERE, HOPPER = (8, 0), (9, 0)
"""Compute capabilities: cuDNN's fused attention begins with the first, and takes heads of more
than `WIDEST_BEFORE_HOPPER` numbers from the second on."""
WIDEST_BEFORE_HOPPER = 128


def check_fused_attention(
    execution: Execution, mesh: jax.sharding.Mesh, models: Iterable[ModelConfig]
) -> None:
    """Raises InputError where fused attention is asked for and these devices cannot compute it."""
    if execution.attention_implementation != "cudnn":
        return
    device = mesh.devices.flat[0]
    capability = _compute_capability(device)
    if capability is None:
        raise InputError(
            f"{fused_attention.SETTING} runs on NVIDIA GPUs only, and these devices are "
            f"{device.platform} ({device.device_kind}); use xla"
        )
    if capability < AMPERE:
        raise InputError(
            f"{fused_attention.SETTING} needs a GPU of the Ampere generation (compute capability "
            f"8.0) or later; {device.device_kind} has {capability[0]}.{capability[1]}; use xla"
        )
    widest = max((fused_attention.head_size(model) for model in models), default=0)
    if capability < HOPPER and widest > WIDEST_BEFORE_HOPPER:
        raise InputError(
            f"{fused_attention.SETTING} takes heads of at most {WIDEST_BEFORE_HOPPER} numbers on "
            f"{device.device_kind}, and up to {fused_attention.WIDEST_HEAD} from the Hopper "
            f"generation on; here a network has heads of {widest}; use xla"
        )


def _compute_capability(device: Any) -> tuple[int, int] | None:
    """Returns the compute capability of an NVIDIA GPU, None for any other device."""
    major, _, minor = str(getattr(device, "compute_capability", "")).partition(".")
    known = device.platform == "gpu" and major.isdecimal() and minor.isdecimal()
    return (int(major), int(minor)) if known else None
