"""Content of files that may be compressed, for every reader of text: `.gz` and `.zst`."""

import functools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import zstandard

from mobilebert_jax.config.schema import InputError

ENDINGS = (".gz", ".zst")
_LARGEST_WINDOW = 1 << 31  # of `zstd --long=31`; the library's own limit refuses --long=28


def content(path: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the content of the file `path`, whose bytes are `chunks`.

    Raises InputError for a file that is damaged, or ends within its compressed data.
    """
    if path.endswith(".gz"):
        return _decompressed(path, chunks, functools.partial(zlib.decompressobj, wbits=31))
    if path.endswith(".zst"):
        library = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        return _decompressed(path, chunks, library.decompressobj)
    return iter(chunks)


def _decompressed(
    path: str, chunks: Iterable[bytes], new_decoder: Callable[[], Any]
) -> Iterator[bytes]:
    """Yields the content of one or more compressed frames."""
    decoder, padded = None, path.endswith(".gz")
    try:
        for number, chunk in enumerate(chunks):
            while chunk:
                # Tapes and some tools fill up a gzip file with zeros, which gzip ignores.
                if decoder is None and number and padded and not (chunk := chunk.lstrip(b"\0")):
                    break
                decoder = decoder or new_decoder()
                data = decoder.decompress(chunk)
                chunk = b""
                if decoder.eof:
                    chunk, decoder = decoder.unused_data, None
                    chunk = chunk.lstrip(b"\0") if padded else chunk
                yield data
    except (zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"{path} is damaged and cannot be decompressed: {error}") from error
    if decoder is not None:  # both decoders end silently within a frame
        raise InputError(f"{path} ends in the middle of its compressed data; copy it again")
