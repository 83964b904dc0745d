"""What becomes of a trained output layer, said before a run: as in the run, of labels alone."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mobilebert_jax import storage
from mobilebert_jax.config.finetune import Files
from mobilebert_jax.config.schema import Config
from mobilebert_jax.finetune import output_layer, pretrained, registry, stage
from mobilebert_jax.finetune.classification import files as table_files
from mobilebert_jax.finetune.classification import next_sentence
from mobilebert_jax.finetune.glue.tasks import GLUE
from mobilebert_jax.finetune.tagging import conll
from mobilebert_jax.objective.finetune import Kind

MOST_BYTES = 1_000_000
"""Of a user's files, which take about a second to read; of larger ones nothing is foreseen."""

_READERS: Mapping[str, Callable[[Files], Any]] = {"classify": table_files.read, "tag": conll.read}


class Wanted(NamedTuple):
    """The output layer of a task."""

    title: str
    kind: Kind
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """What the labels are called elsewhere, in the same order."""


def output_layers(config: Config) -> Iterator[str]:
    """Yields a line for each task on what becomes of the output layer of `finetune.pretrained`.

    Raises InputError where there is no such network, or a file that is read does not fit.
    """
    roles = [role for role in config.finetune.networks if stage.is_given(config, role)]
    if set(roles) <= {"untrained"}:
        return
    network = pretrained.find("finetune.pretrained", config.finetune.pretrained)
    if network.kind is None:
        return
    for task in config.finetune.tasks:
        wanted = _wanted(task, registry.settled(config.finetune).files)
        if wanted is None:
            yield f"{task}, student: output layer kept, permuted or new, as the files will say"
            continue
        found = output_layer.match(network.kind, network.labels, *wanted[1:])
        yield f"{wanted.title}, student: output layer {found}"


def _wanted(task: str, files: Files) -> Wanted | None:
    """Returns what a task needs; None where only files say, and they are too large."""
    if task in GLUE:
        found = GLUE[task]
        kind: Kind = "classes" if found.labels else "number"
        return Wanted(found.title, kind, found.labels, found.tfds_labels)
    if task in registry.SQUAD_VERSIONS:
        return Wanted(registry.squad_title(task), "span")
    if task == "next_sentence":
        return Wanted(registry.NEXT_SENTENCE, "classes", next_sentence.LABELS)
    named = [storage.path(path) for path in (files.train, files.dev, files.test) if path]
    there = [path for path in named if path.is_file()]
    if sum(path.stat().st_size for path in there) > MOST_BYTES:
        return None
    labels = _READERS[task](files).labels
    kind = "tags" if task == "tag" else files.kind
    return Wanted(registry.file_title(files), kind, labels)
