"""What is refused, and what a user should know, of text that was prepared."""

from collections.abc import Iterator
from typing import Any

from mobilebert_jax.config import schema
from mobilebert_jax.config.schema import InputError
from mobilebert_jax.data import corpus, prepare_unit

MOST_SINGLE = 0.5
"""Share of documents of one sentence above which next-sentence prediction means little."""


def check_known(
    settings: schema.Tokenizer,
    sources: tuple[corpus.Source, ...],
    totals: list[dict[str, dict[str, Any]]],
    reports: list[list[dict[str, Any]]],
) -> None:
    """Raises InputError for a source of which the vocabulary knows too little."""
    for source, splits, source_reports in zip(sources, totals, reports, strict=True):
        share = share_of(splits, "unknown", "tokens")
        if share > settings.max_unknown_share:
            words = sorted({word for report in source_reports for word in report["unknown"]})
            raise InputError(
                f"the vocabulary does not know {share:.1%} of the tokens of {source.label}, above "
                f"tokenizer.max_unknown_share={settings.max_unknown_share:g}; it lacks, for "
                f"example, {', '.join(map(repr, words[: prepare_unit.EXAMPLES]))}. Is it of "
                "another language, or of another case (tokenizer.lowercase)? Train one on this "
                "text by leaving tokenizer.path empty"
            )


def share_of(splits: dict[str, dict[str, Any]], part: str, whole: str) -> float:
    """Returns one count of a source as a share of another, over its splits."""
    total = sum(split[whole] for split in splits.values())
    return sum(split[part] for split in splits.values()) / total if total else 0.0


def remarks(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what a user should know of prepared text, `("note" or "warning", sentence)`."""
    for oddity in manifest["tokenizer"]["oddities"]:
        yield "warning", oddity
    for source in manifest["sources"]:
        splits = source["splits"]
        sentences = share_of(splits, "sentences", "documents")
        unknown = share_of(splits, "unknown", "tokens")
        documents = sum(split["documents"] for split in splits.values())
        yield (
            "note",
            f"{source['label']}: {documents:,} documents of {sentences:.1f} sentences on average, "
            f"{unknown:.2%} of the tokens unknown to the vocabulary",
        )
        single = share_of(splits, "single_sentences", "documents")
        if single > MOST_SINGLE:
            yield (
                "warning",
                f"{source['label']}: {single:.0%} of the documents are one sentence, so that next "
                "sentences can mostly not be told from random ones; in plain text only a blank "
                "line should separate documents",
            )
