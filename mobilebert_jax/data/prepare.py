"""From a source of text to tokenised documents on disk: planned, tokenised in parallel, resumable.

Layout of a prepared folder, `manifest.json` being written last of all:

    manifest.json                       what it was made from, counts, digests, versions
    tokenizer/                          the vocabulary and its settings
    source_00/                          a TFDS dataset (see dataset.py), one folder a source
    source_00/partial/                  finished units of an unfinished preparation

How text is divided into units depends on the text and the settings, never on the number of
workers, and a unit's files on its text alone; so the bytes are the same however many processes
there are and however often they were killed.
"""

import contextlib
import dataclasses
import errno
import functools
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from mobilebert_jax import checksums, storage
from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import (
    atomic,
    corpus,
    prepare_checks,
    prepare_unit,
    record_cache,
    work_units,
)
from mobilebert_jax.data import tokenizer as tokenizers
from mobilebert_jax.data.dataset import Documents
from mobilebert_jax.data.tokenizer import Tokenizer
from mobilebert_jax.data.work_units import Unit
from mobilebert_jax.data.workers import Progress, Workers, started

FORMAT = 2
"""Raised whenever the same text would be stored in another way."""
_PACKAGES = ("array-record", "numpy", "sentencepiece", "tensorflow-datasets", "tokenizers")


def prepare(
    data: schema.Data,
    tokenizer: schema.Tokenizer,
    directory: Path,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Makes the tokenizer and the records of `data.source` in `directory`; returns the manifest.

    Does nothing if they are there and what they were made from is unchanged; continues where a
    killed call stopped; makes anew what another source or other settings would give. `workers`
    processes share the work, 0 taking one a core. `progress` gets (phase, done, total), phase
    being "reading", "training tokenizer", "tokenizing" or, into a bucket, "copying". Raises
    InputError for a source that cannot be read, a split that would be empty, and a full disk.
    """
    directory = storage.path(directory)
    sources = corpus.parse_sources(data.source)
    prints = [corpus.fingerprint(source) for source in sources]
    key = _key(data, tokenizer, sources, prints)
    published = _read_manifest(directory)
    if storage.is_remote(directory) and published is not None and published["key"] == key:
        return published
    copied = functools.partial(progress, "copying")
    with record_cache.made_for(directory, copied) as folder:
        manifest = _read_manifest(folder)
        if manifest is None or manifest["key"] != key:
            with _disk_full_reported(folder), started(workers, progress) as pool:
                (folder / "manifest.json").unlink(missing_ok=True)
                units = _plan(data, sources, prints, folder)
                made = _make_tokenizer(tokenizer, units, sources, folder, pool)
                reports = _tokenize(units, made, folder, pool)
                totals = [
                    prepare_unit.finish(_source_folder(folder, i), source, source_reports)
                    for i, (source, source_reports) in enumerate(zip(sources, reports, strict=True))
                ]
                prepare_checks.check_known(tokenizer, sources, totals, reports)
                manifest = _manifest(key, sources, prints, made, totals, reports)
                # ArrayRecord checks what it reads; whole record files would take minutes.
                manifest["files"] = checksums.listing(
                    folder,
                    lambda name: "/partial/" not in name,
                    lambda name: ".array_record-" not in name,
                )
                checksum = prepare_unit.digest(manifest)
                atomic.write_json(folder / "manifest.json", {**manifest, "checksum": checksum})
        for source_folder in folder.glob("source_*"):
            shutil.rmtree(source_folder / "partial", ignore_errors=True)
    return manifest


def open_documents(directory: Path, split: Literal["train", "held_out"]) -> tuple[Documents, ...]:
    """Opens a prepared folder, one `Documents` a source.

    Raises InputError if its preparation has not finished or a file is damaged or missing; of the
    records themselves the sizes are compared, their content when it is read.
    """
    manifest = _finished(storage.path(directory))
    folder = record_cache.of(storage.path(directory))
    problems = checksums.differences(folder, manifest["files"])
    if problems:
        raise InputError(
            f"the prepared data in {directory} is damaged: {'; '.join(problems[:3])}; remove the "
            "folder to prepare it again"
        )
    return tuple(
        Documents(_source_folder(folder, i), split, source["weight"])
        for i, source in enumerate(manifest["sources"])
    )


def load_tokenizer(directory: Path) -> Tokenizer:
    """Loads the tokenizer of a prepared folder; raises InputError if it is not finished."""
    manifest = _finished(storage.path(directory))
    folder = storage.path(directory) / "tokenizer"
    return tokenizers.load_saved(folder, manifest["tokenizer"]["digest"])


def _plan(
    data: schema.Data,
    sources: tuple[corpus.Source, ...],
    prints: list[dict[str, Any]],
    directory: Path,
) -> list[list[Unit]]:
    """Returns the units of each source; their tokenizer is not known yet."""
    plan = []
    for i, (source, fingerprint) in enumerate(zip(sources, prints, strict=True)):
        folder = _source_folder(directory, i) / "partial"
        made = work_units.plan(source, data.validation_fraction, folder, data.max_megabytes * 10**6)
        about = [FORMAT, fingerprint, data.validation_fraction]
        plan.append(
            [
                dataclasses.replace(
                    unit, key=prepare_unit.digest([*about, unit.shard.digest, unit.text_bytes])
                )
                for unit in made
            ]
        )
    return plan


def _make_tokenizer(
    settings: schema.Tokenizer,
    plan: list[list[Unit]],
    sources: tuple[corpus.Source, ...],
    directory: Path,
    pool: Workers,
) -> Tokenizer:
    """Loads the tokenizer of `settings.path`, or trains one on a sample of every unit's text."""
    folder = directory / "tokenizer"
    if settings.path:
        loaded = tokenizers.load(settings.path, settings)
        shutil.rmtree(folder, ignore_errors=True)
        loaded.save(folder)
        return loaded
    total = settings.train_megabytes * 10**6 / sum(source.weight for source in sources)
    sample = [
        unit
        for source, source_units in zip(sources, plan, strict=True)
        for unit in work_units.limited(source_units, max(1, int(total * source.weight)))
    ]
    key = prepare_unit.digest(
        [FORMAT, dataclasses.asdict(settings), [(u.key, u.text_bytes) for u in sample]]
    )
    made_from = atomic.read_json(folder / "made_from.json")
    if made_from is None or made_from["key"] != key:
        shutil.rmtree(folder, ignore_errors=True)
        texts = pool.map(prepare_unit.sample, sample, "reading")
        if not any(texts):
            raise InputError(
                f"data.source={' + '.join(source.label for source in sources)!r} has no document "
                "for training: all fall into the held-out part, or there is none; give more "
                "documents (a blank line separates documents) or lower data.validation_fraction"
            )
        pool.progress("training tokenizer", 0, 1)
        tokenizers.train((line for text in texts for line in text), settings, folder)
        atomic.write_json(folder / "made_from.json", {"key": key})
        pool.progress("training tokenizer", 1, 1)
    return tokenizers.load(folder, settings)


def _tokenize(
    plan: list[list[Unit]], made: Tokenizer, directory: Path, pool: Workers
) -> list[list[dict[str, Any]]]:
    """Runs the units that are not finished; returns what every unit reports, source by source."""
    folder = os.fspath(directory / "tokenizer")
    plan = [
        [
            dataclasses.replace(
                unit,
                tokenizer=folder,
                tokenizer_digest=made.digest,
                key=prepare_unit.digest([unit.key, made.digest]),
            )
            for unit in source_units
        ]
        for source_units in plan
    ]
    wanted = [_source_folder(directory, i) for i in range(len(plan))]
    for stale in set(directory.glob("source_*")) - set(wanted):
        shutil.rmtree(stale)
    for source_folder, source_units in zip(wanted, plan, strict=True):
        _begin_source(source_folder, prepare_unit.digest([unit.key for unit in source_units]))
    reports = {
        unit: atomic.read_json(prepare_unit.report_path(unit.folder, unit.number))
        for source_units in plan
        for unit in source_units
    }
    missing = [unit for unit, report in reports.items() if report is None]
    finished = len(reports) - len(missing)
    made_now = pool.map(prepare_unit.write, missing, "tokenizing", finished)
    reports.update(zip(missing, made_now, strict=True))
    return [[reports[unit] or {} for unit in source_units] for source_units in plan]


def _begin_source(folder: Path, key: str) -> None:
    """Empties the folder of a source unless it holds a part of the work called `key`."""
    partial = folder / "partial"
    found = atomic.read_json(partial / "work.json")
    if found is None or found["key"] != key:
        shutil.rmtree(folder, ignore_errors=True)
        partial.mkdir(parents=True)
        atomic.write_json(partial / "work.json", {"key": key})
    for leftover in partial.glob(f"*{atomic.SUFFIX}"):
        leftover.unlink()


def _manifest(
    key: str,
    sources: tuple[corpus.Source, ...],
    prints: list[dict[str, Any]],
    made: Tokenizer,
    totals: list[dict[str, dict[str, Any]]],
    reports: list[list[dict[str, Any]]],
) -> dict[str, Any]:
    content = {
        "format": FORMAT,
        "tokenizer": {
            "kind": made.kind,
            "size": made.size,
            "digest": made.digest,
            "oddities": made.oddities,
        },
        "sources": [
            {
                "label": source.label,
                "weight": source.weight,
                "empty_documents": sum(report["empty_documents"] for report in source_reports),
                "splits": splits,
            }
            for source, splits, source_reports in zip(sources, totals, reports, strict=True)
        ],
    }
    return {
        "key": key,
        "digest": prepare_unit.digest(content),
        "fingerprints": prints,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        **content,
    }


def _key(
    data: schema.Data,
    tokenizer: schema.Tokenizer,
    sources: tuple[corpus.Source, ...],
    prints: list[dict[str, Any]],
) -> str:
    """Digest of what a prepared folder is made from; how its examples are cut later is no part."""
    settings = dataclasses.asdict(tokenizer)
    if tokenizer.path:
        settings = {"digest": tokenizers.load(tokenizer.path, tokenizer).digest}
    mix = [[source.label, source.weight] for source in sources]
    return prepare_unit.digest(
        [FORMAT, mix, prints, settings, data.validation_fraction, data.max_megabytes]
    )


def _finished(directory: Path) -> dict[str, Any]:
    manifest = _read_manifest(directory)
    if manifest is None:
        raise InputError(
            f"{directory} holds no finished data (no manifest.json); run the stage prepare, which "
            "continues where it stopped"
        )
    return manifest


def _read_manifest(directory: Path) -> dict[str, Any] | None:
    """Returns what was written last of all, None before that; raises InputError if damaged."""
    path = directory / "manifest.json"
    try:
        manifest = atomic.read_json(path)
        if manifest is not None and manifest.pop("checksum") != prepare_unit.digest(manifest):
            raise ValueError("its checksum is another")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}); remove the folder to prepare it again"
        ) from None
    return manifest


def _source_folder(directory: Path, index: int) -> Path:
    return directory / f"source_{index:02d}"


@contextlib.contextmanager
def _disk_full_reported(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        written = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        raise InputError(
            f"the disk of {directory} is full after {written:,} bytes of prepared data; finished "
            "units are kept: free some space and run again, or choose another execution.runs_dir"
        ) from error
