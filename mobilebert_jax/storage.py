"""Folders on a disk or in a bucket: the few operations in which the two differ.

A path that begins with `gs://` is an `epath.Path`, every other one a `pathlib.Path`; both read and
write whole files in the same way. A bucket has no folders and no renames, and an object cannot
grow; but writing an object is atomic, and everybody sees it at once.
"""

import io
import os
import posixpath
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mobilebert_jax.config.schema import InputError

SCHEME = "gs://"
UPLOAD_SECONDS = 60.0
"""Least time between two uploads of a file that grows."""


def is_remote(path: Path | str) -> bool:
    """Whether `path` lies in a bucket."""
    return os.fspath(path).startswith(SCHEME)


def path(text: Path | str) -> Path:
    """Returns the path that `text` names; raises InputError where a package for it is missing.

    A `~` at its beginning is the home folder: shells leave that of `--key=~/x` as it is.
    """
    if not is_remote(text):
        return Path(os.path.expanduser(text))
    _filesystem()
    from etils import epath  # takes a third of a second, which only who has a bucket waits for

    found: Path = epath.Path(text)
    return found


def absolute(path: Path) -> Path:
    """Returns `path` from the root on."""
    return path if is_remote(path) else path.absolute()


def check(folder: Path) -> None:
    """Raises InputError, saying why, where `folder` lies in a bucket that cannot be read."""
    if not is_remote(folder):
        return
    bucket = os.fspath(folder).removeprefix(SCHEME).split("/")[0]
    problem = "there is no such bucket"
    try:
        if _filesystem().exists(bucket):
            return
    except Exception as error:  # credentials, network and rights fail with types of their own
        problem = f"{type(error).__name__}: {error}"
    raise InputError(
        f"{folder}: the bucket {bucket!r} cannot be read ({problem}). Check the name, and that the "
        "machine's service account, or `gcloud auth application-default login`, may use it"
    )


def make_folder(folder: Path) -> None:
    """Makes `folder` and those above it; in a bucket there is nothing to make."""
    if not is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)


def write(path: Path, content: str, suffix: str = ".tmp") -> None:
    """Writes `content` so that a reader sees the old file or the whole new one.

    On a disk it is written beside `path`, under the name with `suffix`, and renamed.
    """
    if is_remote(path):
        _filesystem().pipe_file(os.fspath(path), content.encode())
        return
    temporary = path.with_name(path.name + suffix)
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


def copy(source: Path, target: Path) -> None:
    """Copies one file."""
    if is_remote(source) or is_remote(target):
        target.write_bytes(source.read_bytes())
    else:
        shutil.copyfile(source, target)


def modified(path: Path) -> float:
    """Returns when a file was written, in seconds since 1970."""
    if is_remote(path):
        return float(_filesystem().modified(os.fspath(path)).timestamp())
    return path.stat().st_mtime


def files(folder: Path) -> dict[str, int]:
    """Returns `{path below folder: bytes}` of all files, in sorted order."""
    if not is_remote(folder):
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}
    root = os.fspath(folder).removeprefix(SCHEME)
    listed = _filesystem().find(root, detail=True)
    return {posixpath.relpath(name, root): int(listed[name]["size"]) for name in sorted(listed)}


def move_folder(source: Path, target: Path) -> None:
    """Gives a folder another name; in a bucket file by file, so that a kill leaves some behind."""
    if not is_remote(source):
        target.parent.mkdir(exist_ok=True)
        source.rename(target)
        return
    for name in files(source):
        _filesystem().mv(os.fspath(source / name), os.fspath(target / name))


def remove_files(folder: Path) -> None:
    """Removes all objects below a folder of a bucket."""
    for name in files(folder):
        (folder / name).unlink(missing_ok=True)


def names(folder: Path) -> list[str]:
    """Returns the names of what lies in `folder`, nothing if it is not there."""
    if is_remote(folder):
        try:
            listed = _filesystem().ls(os.fspath(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted({posixpath.basename(name.rstrip("/")) for name in listed})
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def upload(
    folder: Path, target: Path, last: str, progress: Callable[[int, int], None] = lambda i, n: None
) -> None:
    """Copies the files of a local folder into a bucket, the one called `last` after all others.

    `progress` is called with the numbers of files done and of all files.
    """
    found = sorted(files(folder), key=lambda name: name == last)
    for done, name in enumerate(found):
        progress(done, len(found))
        _filesystem().put_file(os.fspath(folder / name), os.fspath(target / name))
    progress(len(found), len(found))


def download(source: Path, folder: Path) -> None:
    """Copies a file of a bucket to a local path; raises OSError where its size differs after."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _filesystem().get_file(os.fspath(source), os.fspath(folder))
    expected, got = size(os.fspath(source)), folder.stat().st_size
    if got != expected:
        raise OSError(f"{source} has {expected} bytes, of which {got} arrived")


class Lines:
    """A text file that grows by lines.

    On a disk a line is there when `append` returns. In a bucket the file is written anew as a
    whole, when UPLOAD_SECONDS have passed and when `keep` is called.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text: list[str] | None = None
        self._unsent = False
        self._sent = time.monotonic()

    def append(self, line: str) -> None:
        """Adds `line`, which ends with a line feed."""
        if not is_remote(self._path):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
            return
        if self._text is None:
            self._text = [self._path.read_text()] if self._path.exists() else []
        self._text.append(line)
        self._unsent = True
        if time.monotonic() - self._sent >= UPLOAD_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Returns when every line is where a new start finds it."""
        if self._unsent and self._text is not None:
            self._text = ["".join(self._text)]
            write(self._path, self._text[0])
            self._unsent, self._sent = False, time.monotonic()


class Written:
    """A folder that a library writes that knows only disks: `local` is where it may write.

    That is `folder` itself, or a temporary folder that `keep` copies to it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.local = folder, folder
        if is_remote(folder):
            self._temporary = tempfile.TemporaryDirectory()
            self.local = Path(self._temporary.name)

    def keep(self) -> None:
        """Returns when everything that was written is in the folder."""
        if is_remote(self._folder):
            upload(self.local, self._folder, last="")


# ---- text -------------------------------------------------------------------------------------


class Object(NamedTuple):
    """An object of a bucket, and the checksum that the bucket itself keeps of it."""

    path: str
    size: int
    checksum: str


def matches(pattern: str) -> list[Object]:
    """Returns the objects that a pattern such as `gs://bucket/text/*.gz` matches."""
    listed = _filesystem().glob(pattern, detail=True)
    return [
        Object(SCHEME + name, int(about["size"]), _checksum(about))
        for name, about in listed.items()
        if about["type"] == "file"
    ]


def _checksum(about: dict[str, Any]) -> str:
    # Objects that were put together of several have no MD5.
    kind = "md5Hash" if "md5Hash" in about else "crc32c"
    return f"{kind} {about[kind]}"


def size(path: str) -> int:
    """Returns the bytes of a file; raises FileNotFoundError."""
    if is_remote(path):
        return int(_filesystem().info(path)["size"])
    return os.path.getsize(path)


def open_bytes(path: str) -> io.BufferedReader:
    """Opens a file to be read from any place on."""
    if is_remote(path):
        return io.BufferedReader(_filesystem().open(path, "rb"), 1 << 20)
    return open(os.path.expanduser(path), "rb")


def _filesystem() -> Any:
    """The bucket's file system; raises InputError where its package is missing."""
    import fsspec  # only who has a bucket waits for it

    # A listing that is kept would hide what other hosts and libraries write meanwhile.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    try:
        return fsspec.filesystem("gcs", finalize_on_close=True)
    except ImportError as error:
        raise InputError(
            f"paths in a bucket (gs://...) need the package gcsfs ({error}); install it with: "
            f"{sys.executable} -m pip install -c requirements.txt 'etils[epath-gcs]'"
        ) from error
