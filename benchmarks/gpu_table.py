"""What `benchmarks.gpu` has measured so far, as tables in Markdown."""

from typing import NamedTuple

from benchmarks import gpu_check, gpu_port, gpu_steps
from benchmarks.gpu_cases import Case, Scale, cases
from benchmarks.kept_rows import KeptRows, Row
from mobilebert_jax.model import sizes
from mobilebert_jax.sharding.chips import CHIPS


class Published(NamedTuple):
    """A figure of others, for orientation."""

    length: int
    batch: int
    sequences_per_s: float
    remark: str


BERT_LARGE_ON_A100 = (
    Published(128, 256, 580.0, ""),
    Published(512, 32, 210.0, "batches of like length in steps of 64: its share is an upper bound"),
)
"""Pretraining of BERT-Large, mixed precision, one A100 80GB of a DGX A100.

Source: NVIDIA, DeepLearningExamples, PyTorch/LanguageModeling/BERT, README of January 2022 (NGC
container 21.11), "Training performance results".
"""


def show(kept: KeptRows, scale: Scale) -> None:
    """Prints the tables."""
    print()
    for line in (*_steps(kept, scale), *_port(kept, scale), *_check(kept), *orientation()):
        print(line)


def fastest(kept: KeptRows, case: Case) -> Row | None:
    """Returns the row of a case's fastest batch."""
    rows = [row for row in kept.rows(gpu_steps.TABLE).values() if row["case"] == case.label]
    timed = [row for row in rows if "tokens_per_s" in row]
    return max(timed, key=lambda row: row["tokens_per_s"], default=None)


def _steps(kept: KeptRows, scale: Scale) -> list[str]:
    lines = ["| step | batch | ms | tokens/s | share of peak | GB |", "|---|---|---|---|---|---|"]
    for case in cases(scale):
        row = fastest(kept, case)
        if row is None:
            own = [r for r in kept.rows(gpu_steps.TABLE).values() if r["case"] == case.label]
            why = next((r["failed"] for r in own if "failed" in r), "not measured")
            lines.append(f"| {case.label} | | {why} | | | |")
            continue
        share = f"{row['share_of_peak']:.1%}" if row["share_of_peak"] else ""
        lines.append(
            f"| {case.label} | {row['batch']} | {row['milliseconds']:.2f} "
            f"| {row['tokens_per_s']:,.0f} | {share} | {row['gigabytes']:.1f} |"
        )
    return lines


def _port(kept: KeptRows, scale: Scale) -> list[str]:
    lines = ["", "| Hugging Face's student | batch | ms | tokens/s | ours / its best |"]
    lines.append("|---|---|---|---|---|")
    for length in scale.lengths:
        own = [row for row in kept.rows(gpu_port.TABLE).values() if row["length"] == length]
        timed = [row for row in own if "tokens_per_s" in row]
        best = max(timed, key=lambda row: row["tokens_per_s"], default=None)
        ours = fastest(kept, Case("student", length))
        for row in own:
            figures = row.get("failed", "out of memory") + " | "
            if row in timed:
                figures = f"{row['milliseconds']:.2f} | {row['tokens_per_s']:,.0f}"
            ratio = ""
            if row is best and ours:
                ratio = f"**{ours['tokens_per_s'] / row['tokens_per_s']:.2f}**"
            lines.append(f"| {row['variant']} | {row['batch']} | {figures} | {ratio} |")
    return lines


def _check(kept: KeptRows) -> list[str]:
    """By how much cuDNN differs: operation by operation, and in the loss of whole steps."""
    found = [f"cuDNN, {key}: {row}" for key, row in kept.rows(gpu_check.TABLE).items()]
    losses: dict[tuple[str, int], dict[str, float]] = {}
    for row in kept.rows(gpu_steps.TABLE).values():
        if "first_loss" in row and row["unroll"] == 1:
            step = row["case"].replace(f", {row['attention']}", ""), row["batch"]
            losses.setdefault(step, {})[row["attention"]] = row["first_loss"]
    for (label, batch), own in losses.items():
        if len(own) == 2:
            gap = abs(own["cudnn"] / own["xla"] - 1)
            found.append(f"first loss, {label}, batch {batch}: cuDNN differs by {gap:.1e}")
    return ["", *found] if found else []


def orientation() -> list[str]:
    """Returns the figures of others, with the share of the peak that they come to."""
    peak = CHIPS["a100-80gb"].peak_flops
    lines = ["", "| NVIDIA's BERT-Large, A100 | batch | sequences/s | tokens/s | share of peak |"]
    lines.append("|---|---|---|---|---|")
    for row in BERT_LARGE_ON_A100:
        flops = 3 * sizes.forward_flops(sizes.BERT_LARGE, row.length)
        share = flops * row.sequences_per_s / peak
        lines.append(
            f"| length {row.length} | {row.batch} | {row.sequences_per_s:.0f} "
            f"| {row.sequences_per_s * row.length:,.0f} | {'at most ' if row.remark else ''}"
            f"{share:.0%} |"
        )
    return lines
