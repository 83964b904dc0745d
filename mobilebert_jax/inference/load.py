"""Opens a finished network from wherever it lies: a run of this project, or a format of others.

model, params, tokenizer, config = mobilebert_jax.load("runs/glue/trials/rte-student-1a2b3c4d")
outputs = model(params, input_ids, input_mask, segment_ids)
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mobilebert_jax import artifacts, storage
from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import FOLDER_FORMATS, InputError
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune import finished_trial, pretrained
from mobilebert_jax.interop import forward, reading
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.model.layers import Network
from mobilebert_jax.model.quantization import RANGE_NAMES
from mobilebert_jax.model.sizes import ModelConfig
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training import checkpoint
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.checkpoint import Damaged
from mobilebert_jax.training.state import Layout

KINDS: dict[str, Kind] = {
    "classes": "sequence_classification",
    "number": "sequence_classification",
    "tags": "token_classification",
    "span": "question_answering",
}
"""Hugging Face's name of a network that was fine-tuned on a kind of task."""

EXACT_FORMATS = tuple(reversed(FOLDER_FORMATS))
"""Folders of a network in an export; ours first, where nothing was left out for others."""


@dataclasses.dataclass(frozen=True)
class Applied:
    """A network as a function of its parameters and of token ids."""

    config: ModelConfig
    kind: Kind
    labels: tuple[str, ...]

    def __call__(
        self, params: dict[str, Any], input_ids: Any, input_mask: Any, segment_ids: Any
    ) -> dict[str, jax.Array]:
        """Returns the outputs by name for int32 [B, T] each; see `interop.forward.function`.

        Can be compiled and differentiated (`jax.jit`, `jax.grad`) as any function of JAX.
        """
        network = Model(self.config, self.kind, params, self.labels, None)
        inputs = (jnp.asarray(array, jnp.int32) for array in (input_ids, input_mask, segment_ids))
        return forward.function(network)(*inputs)


class Loaded(NamedTuple):
    """What Python code needs of a network."""

    model: Applied
    params: dict[str, Any]
    """Numpy float32, as in `interop.model.Model`."""
    tokenizer: Tokenizer
    config: ModelConfig


def load(path: str | Path) -> Loaded:
    """Opens the network at `path` for use from Python; raises InputError as `open_model`."""
    opened = open_model(path)
    if opened.tokenizer is None:
        raise InputError(f"{path} holds no tokenizer; put the vocab.txt of its training there")
    applied = Applied(opened.config, opened.kind, opened.labels)
    return Loaded(applied, opened.params, opened.tokenizer, opened.config)


def open_model(path: str | Path, layout: Layout | None = None) -> Model:
    """Returns the network at `path`; with the devices of several processes in `layout`, all of
    these must ask for it.

    Raises InputError as `find`.
    """
    folder = find(path)
    opened = _of_stage(folder, layout)
    return reading.read(folder)[0] if opened is None else opened


def find(path: str | Path) -> Path:
    """Returns where the network itself lies that `path` names.

    That is a training stage or a trial of any run, the folder of a run (whose student it then is),
    a network's folder in an export, or what `interop.reading` knows. Raises InputError for anything
    else.
    """
    folder = storage.path(str(path))
    if _is_stage(folder) or (not storage.is_remote(folder) and reading.is_there(folder)):
        return folder
    for name in EXACT_FORMATS:
        if (folder / name).is_dir():
            return folder / name
    students = sorted(folder.glob("distill-*/manifest.json"))
    if len(students) == 1:
        return students[0].parent
    if students:
        found = ", ".join(student.parent.name for student in students)
        raise InputError(f"{path} holds several students; name one of {found}")
    raise InputError(
        f"{path} holds no finished network; it should be the folder of a training stage or of a "
        "trial, such as runs/<name>/distill-<digest>, of a run, of a network in an export, "
        f"{reading.FORMATS}{reading.hint(path)}"
    )


def _is_stage(folder: Path) -> bool:
    stages = pretrained.MODEL_SETTINGS
    found = any(artifacts.existing(stage, folder) is not None for stage in stages)
    return found or finished_trial.existing(folder) is not None


def _of_stage(folder: Path, layout: Layout | None) -> Model | None:
    """Returns the network of a training stage or a trial, None where `folder` is neither."""
    for stage in pretrained.MODEL_SETTINGS:
        artifact = artifacts.existing(stage, folder)
        if artifact is not None:
            opened = pretrained.open_stage(artifact)
            params = _restored(Network(opened.model), folder, layout)
            return Model(opened.model, "pretraining", params, (), opened.tokenizer)
    trial = finished_trial.existing(folder)
    if trial is None:
        return None
    labels = ("start", "end") if trial.kind == "span" else trial.labels
    params = trial.scale.folded(_restored(trial.network, folder, layout))
    return Model(trial.model, KINDS[trial.kind], params, labels, trial.tokenizer)


def digest_of(path: str) -> str:
    """Returns the digest of the network at `path`: of its stage, or of its files."""
    return pretrained.find("export.model", str(find(path))).digest


def _restored(network: Network, folder: Path, layout: Layout | None) -> dict[str, Any]:
    if layout is None:
        layout = Layout(make_mesh(Mesh(data=1), jax.devices()[:1]))
    abstract = state_lib.abstract_params(network, layout)
    try:
        params = checkpoint.load_params(folder / "checkpoints", abstract)
    except Damaged as error:
        raise InputError(f"{error}; it cannot be used") from error
    return _without_ranges(jax.tree.map(state_lib.whole, params))


def _without_ranges(params: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the ranges of training for 8 bits, which no format has a place for: what computes
    in 8 bits is the file that is exported."""
    return {
        name: _without_ranges(leaf) if isinstance(leaf, dict) else leaf
        for name, leaf in params.items()
        if not (isinstance(leaf, dict) and set(leaf) == set(RANGE_NAMES))
    }
