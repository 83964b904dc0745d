"""A network with how it is run: one machine's devices, batches, lengths."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config.execution import Mesh
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.finetune.examples import Example
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.finetune.predict import ByBatch, Predictor, by_batch, predictor
from mobilebert_jax.inference.requests import Item
from mobilebert_jax.interop.forward import task_head
from mobilebert_jax.interop.model import Kind, Model
from mobilebert_jax.model.layers import Network
from mobilebert_jax.objective.loss_terms import Batch, Params
from mobilebert_jax.sharding import rules
from mobilebert_jax.sharding.mesh import make_mesh
from mobilebert_jax.training.state import Layout


@dataclasses.dataclass
class Known:
    """How many tokens of the texts so far there were, and how many the vocabulary does not know."""

    tokens: int = 0
    unknown: int = 0

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are unknown."""
        return self.unknown / max(self.tokens, 1)


@dataclasses.dataclass(frozen=True)
class Scoring:
    """A network, its parameters on the devices, and the size of its batches."""

    network: Network
    kind: Kind
    labels: tuple[str, ...]
    tokenizer: Tokenizer
    params: Params
    layout: Layout
    batch_size: int
    length: int
    """Tokens of one example at most."""
    known: Known = dataclasses.field(default_factory=Known)

    def check_pairs(self, where: str) -> None:
        """Raises InputError where the network cannot tell the second text of a pair."""
        types = self.network.config.type_vocab_size
        if types < 2:
            raise InputError(
                f"{where}: a second text needs a network with two types of segments, and this one "
                f"has type_vocab_size={types}"
            )

    def example(self, item: Item) -> Example:
        """Returns an item's text, or its pair of texts; raises InputError as `check_pairs`."""
        found = item.example()
        if found.second is not None:
            self.check_pairs(item.where)
        return found

    def apply(self, function: Callable[[Params, Batch], Any]) -> ByBatch:
        """Returns `finetune.predict.by_batch` of `function` at these sizes."""
        compute = by_batch(
            function,
            self.layout,
            batch_size=self.batch_size,
            length=self.length,
            pad=self.tokenizer.pad,
        )
        return lambda params, rows: compute(params, self._counted(rows))

    def predictor(self) -> Predictor:
        """Returns `finetune.predict.predictor` of the network."""
        compute = predictor(
            self.network,
            self.layout,
            batch_size=self.batch_size,
            length=self.length,
            pad=self.tokenizer.pad,
        )
        return lambda params, rows: compute(params, self._counted(rows))

    def _counted(self, rows: Rows) -> Rows:
        unk = self.tokenizer.unk
        around = [i for i in self.tokenizer.special_ids if i != unk]
        self.known.tokens += int(np.count_nonzero(~np.isin(rows.ids_F, around)))
        self.known.unknown += int(np.count_nonzero(rows.ids_F == unk))
        return rows


def scoring(model: Model, where: str, batch_size: int, length: int | None) -> Scoring:
    """Puts `model` on this machine's devices, over which batches are divided.

    `length` is that of the longest example, all positions of the network by default. Raises
    InputError for a length beyond these, or where there is no tokenizer.
    """
    if model.tokenizer is None:
        raise InputError(f"{where} holds no tokenizer; put the vocab.txt of its training there")
    most = model.config.max_position_embeddings
    length = most if length is None else length
    if not 4 <= length <= most:
        raise InputError(f"--length={length} must lie in 4 to {most}, the positions of the network")
    layout = Layout(make_mesh(Mesh()))
    devices = layout.mesh.size
    return Scoring(
        Network(model.config, task=task_head(model)),
        model.kind,
        model.labels,
        model.tokenizer,
        jax.device_put(model.params, rules.replicated(layout.mesh)),
        layout,
        -(-batch_size // devices) * devices,
        length,
    )


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns probabilities along the last axis."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return found
