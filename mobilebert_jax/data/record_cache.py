"""Records in a bucket: ArrayRecord reads files of a disk only, so every host has a copy on its own.

The copy lies in the user's cache folder, named after the bucket's. Its manifest is written last of
all: where it is the same as the bucket's, the copy is whole.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mobilebert_jax import storage
from mobilebert_jax.data import atomic

MANIFEST = "manifest.json"


def place(folder: Path) -> Path:
    """Returns where the copy of `folder` lies on this machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(os.fspath(folder).encode()).hexdigest()[:16]
    return cache / "mobilebert_jax" / name


def of(folder: Path) -> Path:
    """Returns a local folder with the files of `folder`, whose manifest must be there.

    Copies them where that is not done yet: every file is checked to have arrived in its size.
    """
    if not storage.is_remote(folder):
        return folder
    copy = place(folder)
    manifest = (folder / MANIFEST).read_bytes()
    with _alone(copy):
        if not (copy / MANIFEST).exists() or (copy / MANIFEST).read_bytes() != manifest:
            shutil.rmtree(copy, ignore_errors=True)
            for name in storage.files(folder):
                if name != MANIFEST:
                    storage.download(folder / name, copy / name)
            atomic.write_bytes(copy / MANIFEST, manifest)
    return copy


@contextlib.contextmanager
def made_for(folder: Path, progress: Callable[[int, int], None]) -> Iterator[Path]:
    """Gives a local folder in which to make what belongs into `folder`, and copies it there after.

    A folder on a disk is given itself. What an interrupted call has made is found again on the same
    machine. `progress` is called with the numbers of files copied and of all files.
    """
    if not storage.is_remote(folder):
        yield folder
        return
    copy = place(folder)
    with _alone(copy):
        yield copy
        (folder / MANIFEST).unlink(missing_ok=True)
        storage.remove_files(folder)
        storage.upload(copy, folder, MANIFEST, progress)


@contextlib.contextmanager
def _alone(copy: Path) -> Iterator[None]:
    """Lets one process of this machine at a time work on `copy`."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
