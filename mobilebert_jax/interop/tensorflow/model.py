"""Networks from the checkpoints of the authors' TensorFlow code, MobileBERT's and BERT's.

Beside the network such a checkpoint may hold its teacher, moments of the optimiser, counters and
ranges of quantisation-aware training, all of which are left out and reported.

Source: variable names of the authors' code (modeling.py, run_pretraining.py, run_classifier.py,
run_squad.py, lamb_optimizer.py), and of BERT's.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.interop import parameter_names, shapes
from mobilebert_jax.interop.huggingface import safetensors as safetensors_files
from mobilebert_jax.interop.model import TASK_KINDS, Kind, Model
from mobilebert_jax.interop.shapes import Shape
from mobilebert_jax.interop.tensorflow import bert_config
from mobilebert_jax.interop.tensorflow import checkpoint as tensor_bundle
from mobilebert_jax.interop.tensorflow.checkpoint import Entry

VOCABULARY = "vocab.txt"
TEACHER = "teacher/"

_SKIPPED = (
    (
        r"/(adam|lamb)_[mv]$|/adafactor_[mv][cr]?$|^beta[12]_power$"
        r"|/(Adam|LAMB|Momentum|RMSProp|Adagrad|Adafactor)\w*$",
        "state of the optimiser",
    ),
    (r"/ExponentialMovingAverage$", "moving average of a tensor"),
    (r"(^|/)(global_step|\w*_counter)$", "counter"),
    (r"FakeQuant", "range of quantisation-aware training"),
)
_ENCODER = ("bert/embeddings/", "bert/encoder/")
_SHOWN = 8
"""Names of unknown tensors that are printed."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What was taken from a checkpoint and what was not."""

    source: Path
    read: tuple[str, ...]
    skipped: dict[str, str]
    """Name and reason."""
    unknown: tuple[str, ...]
    """Neither part of the network nor known to be left out."""
    assumed: dict[str, Any]
    """Settings that `bert_config.json` does not give and the authors' code has a default for."""
    tokenizer: str
    """What became of the vocabulary."""

    def lines(self) -> list[str]:
        """Returns the report as text."""
        found = [f"{self.source}: {len(self.read):,} tensors read; {self.tokenizer}"]
        for reason in dict.fromkeys(self.skipped.values()):
            left = [name for name, why in self.skipped.items() if why == reason]
            more = ", ..." if len(left) > 1 else ""
            found.append(f"left out, {reason}: {len(left):,} ({left[0]}{more})")
        if self.unknown:
            more = ", ..." if len(self.unknown) > _SHOWN else ""
            shown = ", ".join(self.unknown[:_SHOWN])
            found.append(f"unknown and left out: {len(self.unknown):,} ({shown}{more})")
        if self.assumed:
            pairs = ", ".join(f"{key}={value}" for key, value in self.assumed.items())
            found.append(f"not in {bert_config.NAME}, so as in the authors' code: {pairs}")
        return found


def read(path: Path, scope: str = "", settings: Path | None = None) -> tuple[Model, Report]:
    """Reads the network of a checkpoint, its settings from `bert_config.json` beside it.

    Top-level `output_weights` are a classifier of texts, as in the authors' and BERT's
    run_classifier.py; names of classes are nowhere told. Published networks were trained with
    padding in the trigram of the last word, so the settings say that.

    Args:
      path: the checkpoint's folder, its prefix, or one of its files. Of several checkpoints in a
        folder, the text file `checkpoint` says which.
      scope: reads the network whose names begin so, as "teacher/".
      settings: a file to read instead of `bert_config.json`, such as the teacher's own.

    Raises InputError for a damaged checkpoint, settings or a vocabulary that do not go with it, a
    missing tensor and one of another shape.
    """
    prefix = find(path)
    bundle = tensor_bundle.open(prefix)
    entries, skipped = _sorted_out(bundle.entries, scope)
    kind = _kind(prefix, entries, bundle.entries, scope)
    source = prefix.parent / bert_config.NAME if settings is None else settings
    config, assumed = bert_config.read(source)
    expected = shapes.theirs(config, kind, _outputs(kind, entries), "tensorflow")
    _check(prefix, source, entries, expected)
    tensors = {
        name: safetensors_files.as_float32(scope + name, bundle[scope + name], prefix)
        for name in expected
    }
    tokenizer = _tokenizer(prefix.parent / VOCABULARY, config.vocab_size, source)
    report = Report(
        prefix,
        tuple(scope + name for name in expected),
        skipped,
        tuple(scope + name for name in entries if name not in expected),
        assumed,
        f"no {VOCABULARY} beside it, so no tokenizer"
        if tokenizer is None
        else f"{VOCABULARY}: {tokenizer.size:,} pieces, {_case(tokenizer)}",
    )
    labels = ("start", "end") if kind == "question_answering" else ()
    params = parameter_names.to_params(config, kind, "tensorflow", tensors)
    return Model(config, kind, params, labels, tokenizer), report


def find(path: Path) -> Path:
    """Returns the prefix of the checkpoint that `path`, a folder, a prefix or a file, means.

    Raises InputError for a folder without a checkpoint, and for one with several and no word on
    which of them is meant.
    """
    if not path.is_dir():
        return path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))
    found = sorted(index.with_suffix("") for index in path.glob("*.index"))
    listed = ", ".join(prefix.name for prefix in found) or "none"
    latest = path / "checkpoint"
    if latest.is_file():
        text = latest.read_text(encoding="utf-8", errors="replace")
        match = re.search(r'^model_checkpoint_path:\s*"(.+)"', text, re.MULTILINE)
        if match is None:
            raise InputError(f"{latest}: names no model_checkpoint_path; there are: {listed}")
        prefix = path / Path(match.group(1)).name
        if prefix not in found:
            raise InputError(
                f"{latest}: names {prefix.name}, which is not there; there are: {listed}"
            )
        return prefix
    if len(found) != 1:
        raise InputError(
            f"{path}: has {len(found)} TensorFlow checkpoints ({listed}); give one of them, as "
            f"{found[-1] if found else path / 'mobilebert.ckpt'}"
        )
    return found[0]


def _sorted_out(
    entries: Mapping[str, Entry], scope: str
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Returns what may be the network's, its names without the scope, and what is left out."""
    kept: dict[str, Entry] = {}
    skipped: dict[str, str] = {}
    for name, entry in entries.items():
        reason = next((why for pattern, why in _SKIPPED if re.search(pattern, name)), "")
        if reason:
            skipped[name] = reason
        elif not name.startswith(scope):
            skipped[name] = f"outside {scope}"
        elif not scope and name.startswith(TEACHER):
            skipped[name] = "the teacher's network"
        else:
            kept[name.removeprefix(scope)] = entry
    return kept, skipped


def _kind(
    prefix: Path, entries: Mapping[str, Entry], everything: Mapping[str, Entry], scope: str
) -> Kind:
    def has(beginning: str) -> bool:
        return any(name.startswith(beginning) for name in entries)

    if not has("bert/"):
        raise InputError(f"{prefix}: {_what_else(everything, scope)}")
    if has("cls/squad/"):
        return "question_answering"
    if "output_weights" in entries:
        return "sequence_classification"
    words, sentences = has("cls/predictions/"), has("cls/seq_relationship/")
    if words:
        return "pretraining" if sentences else "masked_lm"
    return "next_sentence" if sentences else "bare"


def _what_else(everything: Mapping[str, Entry], scope: str) -> str:
    wanted = f"{scope}bert/embeddings/word_embeddings"
    if not scope and any(name.startswith(f"{TEACHER}bert/") for name in everything):
        return (
            f"its only network is the teacher under {TEACHER}, which no command reads. From Python "
            f"interop.tensorflow.model.read(path, {TEACHER!r}, settings), settings being the path "
            "of the teacher's own bert_config.json, returns it first of two, and "
            "interop.own_format.write(model, folder) makes a folder of it that every command reads"
        )
    if any(".ATTRIBUTES/" in name for name in everything):
        return (
            "an object-based checkpoint of TensorFlow 2, whose variables have other names; read "
            "are those of the authors' TensorFlow 1 code, such as " + wanted
        )
    if not everything:
        return f"holds no tensor; a network has {wanted}"
    return f"no tensor's name begins with {scope}bert/; nearest to {wanted} is " + nearest(
        wanted, everything
    )


def _outputs(kind: Kind, entries: Mapping[str, Entry]) -> int:
    """Returns how many outputs the task's layer has, 0 for a network without a task."""
    if kind == "question_answering":
        return 2
    return (*entries["output_weights"].shape, 1)[0] if kind in TASK_KINDS else 0


def _check(
    prefix: Path, settings: Path, entries: Mapping[str, Entry], expected: Mapping[str, Shape]
) -> None:
    where = f"{prefix}.index: "
    missing = [name for name in expected if name not in entries]
    if missing:
        unused = [name for name in entries if name not in expected] or list(entries)
        raise InputError(
            f"{where}lacks {len(missing)} tensor{'s' * (len(missing) > 1)} of the network that "
            f"{settings} describes, first {missing[0]!r}; nearest name: "
            f"{nearest(missing[0], unused)}"
        )
    wrong = [name for name, shape in expected.items() if entries[name].shape != shape]
    if wrong:
        raise InputError(
            f"{where}tensor {wrong[0]!r} has the shape {entries[wrong[0]].shape}, but by "
            f"{settings} it is {expected[wrong[0]]}; so for {len(wrong)} of {len(expected)} tensors"
        )
    # A network of fewer layers than were trained would load and answer nonsense.
    extra = [name for name in entries if name not in expected and name.startswith(_ENCODER)]
    if extra:
        raise InputError(
            f"{where}tensor {extra[0]!r} and {len(extra) - 1} more have no place in the network "
            f"that {settings} describes; nearest name there: {nearest(extra[0], expected)}"
        )


def _tokenizer(path: Path, size: int, settings: Path) -> Tokenizer | None:
    if not path.is_file():
        return None
    lowercase = not any(map(_is_cased, path.read_text(errors="replace").split("\n")))
    found = tokenizers.load(path, schema.Tokenizer(kind="wordpiece", lowercase=lowercase))
    if found.size != size:
        raise InputError(
            f"{path}: has {found.size} pieces, but vocab_size in {settings} is {size}; put the "
            "vocabulary there that the network was trained with"
        )
    return found


def _is_cased(piece: str) -> bool:
    """Whether an uncased vocabulary cannot hold `piece`; those in brackets are not of text."""
    return not piece.startswith("[") and any("A" <= character <= "Z" for character in piece)


def _case(tokenizer: Tokenizer) -> str:
    return "uncased" if tokenizer.lowercase else "cased, as it has capital letters"
