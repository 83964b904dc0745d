"""Folders that are there whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mobilebert_jax.config.schema import InputError


@contextlib.contextmanager
def written(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside `folder` to write in, which at the end becomes `folder`.

    After an error nothing is left behind. Raises InputError where `folder` already holds something,
    since what is in it may be someone's only copy.
    """
    folder = Path(os.path.abspath(folder))
    check_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield temporary
        # mkdtemp lets nobody else read; give what any new folder here would have.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        check_free(folder)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_free(folder: Path) -> None:
    """Raises InputError unless `folder` is absent or an empty folder."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise InputError(
            f"{folder} already exists and is not an empty folder; name another, or remove it first"
        )
