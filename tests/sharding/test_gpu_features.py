"""Fused attention is refused where the devices cannot compute it."""

from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

from mobilebert_jax.config.execution import Execution, Mesh
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.model import sizes
from mobilebert_jax.sharding.gpu_features import check_fused_attention
from mobilebert_jax.sharding.mesh import make_mesh

FUSED = Execution(attention_implementation="cudnn")


def mesh_of(platform: str, kind: str, **attributes: str) -> Any:
    device = SimpleNamespace(platform=platform, device_kind=kind, **attributes)
    return cast(Any, SimpleNamespace(devices=np.array([device])))


H200 = mesh_of("gpu", "NVIDIA H200", compute_capability="9.0")
A100 = mesh_of("gpu", "NVIDIA A100-SXM4-80GB", compute_capability="8.0")


def test_it_runs_on_gpus_of_nvidia() -> None:
    check_fused_attention(FUSED, H200, [sizes.IB_BERT_LARGE, sizes.MOBILEBERT])
    check_fused_attention(FUSED, A100, [sizes.MOBILEBERT, sizes.BERT_LARGE])


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (mesh_of("tpu", "TPU v5e"), "these devices are tpu (TPU v5e); use xla"),
        (mesh_of("gpu", "AMD MI300", compute_capability="gfx942"), "are gpu (AMD MI300); use xla"),
        (mesh_of("gpu", "Tesla V100", compute_capability="7.0"), "Tesla V100 has 7.0; use xla"),
        (A100, "at most 128 numbers on NVIDIA A100-SXM4-80GB, and up to 256 from the Hopper"),
    ],
)
def test_other_devices_are_refused(mesh: Any, expected: str) -> None:
    with pytest.raises(InputError) as error:
        check_fused_attention(FUSED, mesh, [sizes.IB_BERT_LARGE])
    assert expected in str(error.value)
    check_fused_attention(Execution(), mesh, [sizes.IB_BERT_LARGE])


def test_the_cpu_of_this_machine_is_refused() -> None:
    mesh = make_mesh(Mesh(), jax.devices()[:1])
    with pytest.raises(InputError, match=r"runs on NVIDIA GPUs only, and these devices are cpu"):
        check_fused_attention(FUSED, mesh, [sizes.MOBILEBERT])
