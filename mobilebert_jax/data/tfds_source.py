"""TFDS datasets without TensorFlow: their builders, and documents out of a text feature."""

import importlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mobilebert_jax.config.schema import InputError, nearest
from mobilebert_jax.data.text_files import lines_of

SPLIT = "train"
_NAME = re.compile(r"[\w.-]+(/[\w.+-]+)?(:[\d.]+)?$")
_PROBE_URL = "https://storage.googleapis.com/"
_PROBE_SECONDS = 5


def prepared(name: str, splits: Iterable[str]) -> Any:
    """Returns the builder of dataset `name`, downloaded and prepared first if need be.

    Raises InputError where that cannot be done, or where the dataset lacks one of `splits`.
    """
    if not _NAME.match(name):  # TFDS would look for the part before the colon on the network
        raise InputError(f"tfds:{name} is no name of a dataset; write NAME[/CONFIG][:VERSION]")
    import tensorflow_datasets as tfds  # takes seconds: only who names such a source waits

    _register(Path(tfds.__file__).parent, name.split("/")[0].split(":")[0])
    try:
        builder = tfds.builder(name)
        if not builder.is_prepared():
            builder = tfds.builder(name, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError, ImportError) as error:
        raise InputError(f"tfds:{name} cannot be opened: {_first_line(error)}") from error
    if not builder.is_prepared():
        _prepare(builder, name)
    for split in splits:
        if split not in builder.info.splits:
            raise InputError(
                f"tfds:{name} has no split {split!r}; its splits are "
                f"{', '.join(builder.info.splits)}"
            )
    if builder.info.file_format.file_suffix != "array_record":
        raise InputError(
            f"tfds:{name} is prepared in {builder.data_dir} as {builder.info.file_format.value}, "
            "which only TensorFlow reads; prepare it again with --file_format=array_record"
        )
    return builder


def fingerprint(name: str) -> dict[str, Any]:
    """Returns name and version of a prepared dataset; raises InputError if it cannot be had."""
    info = prepared(name, (SPLIT,)).info
    return {"tfds": info.full_name, "version": str(info.version)}


def size(name: str) -> tuple[str, int, int]:
    """Returns full name, number of records and bytes of the `train` split."""
    info = prepared(name, (SPLIT,)).info
    return info.full_name, info.splits[SPLIT].num_examples, info.splits[SPLIT].num_bytes


def documents(
    name: str, field: str, start: int, stop: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields `(origin, lines)` of records `start` to `stop`; InputError if the field is no text."""
    builder = prepared(name, (SPLIT,))
    features = builder.info.features
    if field not in features:
        raise InputError(
            f"tfds:{name} has no feature {field!r}; the nearest is {nearest(field, features)!r}"
        )
    source = builder.as_data_source(split=SPLIT)
    for index in range(start, stop):
        text = source[index][field]
        text = text.decode() if isinstance(text, bytes) else text
        if not isinstance(text, str):
            raise InputError(
                f"tfds:{name}: feature {field!r} holds a {type(text).__name__}, not text"
            )
        if lines := lines_of(text):
            yield f"{builder.info.full_name}:{index}", lines


def _register(package: Path, dataset: str) -> None:
    """Imports the module of a dataset of the old layout: until then its name is unknown."""
    for path in sorted(
        [*package.glob(f"*/{dataset}.py"), *package.glob(f"*/{dataset}/{dataset}.py")]
    ):
        importlib.import_module(".".join(path.relative_to(package.parent).with_suffix("").parts))


def _prepare(builder: Any, name: str) -> None:
    try:
        urllib.request.urlopen(_PROBE_URL, timeout=_PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # the server answered: the network is there
    except OSError as error:
        # TFDS would retry for minutes before it gave up.
        raise InputError(
            f"tfds:{name} is not prepared in {builder.data_dir} and there is no network to "
            f"download it ({error}); prepare it on another machine with "
            f"`tfds build {name} --file_format=array_record` and copy the folder"
        ) from error
    try:
        builder.download_and_prepare()
    except Exception as error:  # each dataset has its own ways to fail
        raise InputError(f"tfds:{name} cannot be prepared: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
