"""The train steps of an experiment as the run itself makes them, with shapes in place of arrays.

Objectives, optimisers and phases come from `curriculum`, batches from the feed over two documents
of one word: neither text nor parameters are needed.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.config.schema import Config
from mobilebert_jax.data.feed import Feed
from mobilebert_jax.data.masking import Vocabulary
from mobilebert_jax.pipeline import curriculum
from mobilebert_jax.sharding import rules
from mobilebert_jax.train import Phase, Training
from mobilebert_jax.training import state as state_lib
from mobilebert_jax.training.state import Layout, State

FIRST_WORD = 5
"""The first token that is not special; which numbers these are does not matter to a compiler."""


class Program(NamedTuple):
    """One train step to be compiled: a phase of a training stage."""

    training: Training
    phase: Phase


class Arguments(NamedTuple):
    """Shapes, types and shardings of what a step takes."""

    state: State
    teacher: Any
    batch: dict[str, Any]
    key: Any


@dataclasses.dataclass(frozen=True)
class OneWord:
    """Two documents of a single repeated word: enough for a batch to have its shapes."""

    length: int
    weight: float = 1.0

    @property
    def token_counts(self) -> NDArray[np.int64]:
        return np.full(2, self.length, np.int64)

    @property
    def document_numbers(self) -> NDArray[np.int64]:
        return np.arange(2)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int, /) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        tokens = np.full(self.length, FIRST_WORD, np.int32)
        return tokens, np.ones(self.length, np.int32)


class Textless(curriculum.Setting):
    """A setting whose feed makes one row of a batch, on a machine that has none of its devices."""

    def feed(self, batch_size: int, stream: int) -> Feed:
        documents = [OneWord(4 * self.config.data.max_seq_length)]
        return Feed(
            documents, self.vocabulary, self.config.data, batch_size=batch_size, seed=0, rows=[0]
        )


def program(config: Config, layout: Layout, stage: str, layer: int | None) -> Program:
    """Returns the train step of a stage, of the phase that teaches `layer` where it has phases."""
    training = _training(_setting(config, layout), stage, layout)
    return Program(training, training.phases[layer or 0])


def _setting(config: Config, layout: Layout) -> Textless:
    size = config.tokenizer.vocab_size
    words = np.arange(FIRST_WORD, size, dtype=np.int32)
    return Textless(config, layout, (), Vocabulary(0, 1, 2, 3, words, np.ones(size, bool)))


def _training(setting: curriculum.Setting, stage: str, layout: Layout) -> Training:
    if stage == "teacher":
        return curriculum.teacher_training(setting)
    if stage == "baseline":
        return curriculum.baseline_training(setting)
    teacher = state_lib.abstract_teacher(setting.watched_teacher(stage), layout)
    if stage == "transfer":
        return curriculum.transfer_training(setting, teacher)
    if stage == "control":
        return curriculum.control_training(setting, teacher)
    return curriculum.distill_training(setting, teacher, None)


def arguments(program: Program, layout: Layout) -> Arguments:
    """Returns what the step of `program` takes, sharded as in a run."""
    feed, sharding = program.training.feed, rules.batch_sharding(layout.mesh)
    batch = {
        name: jax.ShapeDtypeStruct((feed.batch_size, *row.shape[1:]), row.dtype, sharding=sharding)
        for name, row in feed[0].items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    whole = rules.replicated(layout.mesh)
    return Arguments(
        state_lib.abstract_state(program.training.network, program.training.optimizer, layout),
        program.training.teacher,
        batch,
        jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=whole),
    )
