"""A finished trial, opened from its folder alone."""

from pathlib import Path
from typing import NamedTuple

from mobilebert_jax import artifacts, storage
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune.classification.target_scaling import UNCHANGED, Scale
from mobilebert_jax.finetune.task import READS, outputs_of
from mobilebert_jax.model.layers import Network, TaskHead
from mobilebert_jax.model.sizes import ModelConfig
from mobilebert_jax.objective.finetune import Kind


class Finished(NamedTuple):
    """The network of a trial, before its parameters are read."""

    directory: Path
    digest: str
    task: str
    data: str
    """Digest of the task's rows."""
    model: ModelConfig
    kind: Kind
    labels: tuple[str, ...]
    scale: Scale
    """Of the numbers that its checkpoint says."""
    length: int
    quantized: bool
    metrics: dict[str, float]
    """On the dev sets, in per cent."""
    tokenizer: Tokenizer

    @property
    def network(self) -> Network:
        """Computes as the trial did, in float32."""
        head = TaskHead(READS[self.kind], outputs_of(self.kind, self.labels))
        return Network(self.model, task=head, quantized="rounded" if self.quantized else "no")


def existing(folder: Path) -> Finished | None:
    """Returns the finished trial in `folder`; None where there is none.

    Raises InputError for one that its sweep does not report, whose parameters were not kept.
    """
    manifest = artifacts.manifest(folder) or {}
    science = manifest.get("science", {})
    if not {"task", "model", "network"} <= set(science):
        return None
    if not storage.names(folder / "checkpoints"):
        raise InputError(f"{folder}: {_without_parameters(folder, manifest['stage'])}")
    artifacts.check_files(folder)
    return Finished(
        folder,
        manifest["digest"],
        science["task"],
        science["data"],
        ModelConfig(**science["model"]),
        manifest["kind"],
        tuple(manifest["labels"]),
        Scale(*science.get("scale", UNCHANGED)),
        science["max_seq_length"],
        science.get("quantized", False),
        manifest["metrics"],
        tokenizers.load_saved(folder / "tokenizer", science["tokenizer_digest"]),
    )


def _without_parameters(folder: Path, stage: str) -> str:
    kept = [
        other.name
        for other in sorted(folder.parent.glob(f"{stage}-*"))
        if storage.names(other / "checkpoints")
    ]
    there = f"; still there are those of {', '.join(kept)}" if kept else ""
    return f"its parameters are gone, a sweep keeps those of the trials that it reports{there}"
