"""The model card: what a network is, how it came about, what was measured, what it is for."""

from typing import Any

import yaml

from mobilebert_jax.export.formats import FORMATS
from mobilebert_jax.export.subjects import Subject
from mobilebert_jax.interop import parameter_names
from mobilebert_jax.model import sizes
from mobilebert_jax.model.sizes import ModelConfig

USES = {
    "pretraining": "fine-tuning on tasks of your own, and filling in masked words",
    "masked_lm": "fine-tuning on tasks of your own, and filling in masked words",
    "next_sentence": "telling whether one text follows another",
    "bare": "features of texts, and fine-tuning on tasks of your own",
    "sequence_classification": "classifying texts, or pairs of texts, like those of its task",
    "token_classification": "tagging words of texts like those of its task",
    "multiple_choice": "choosing between given answers",
    "question_answering": "answering questions by a span of a text that comes with them",
}


def write(
    subject: Subject,
    files: list[dict[str, Any]],
    beside: list[str],
    history: list[dict[str, Any]],
    licence: str,
) -> str:
    """Returns the card in Markdown, with the fields that model hubs read at its top.

    `files` are the results of `formats.write` and `beside` that of `formats.write_beside`;
    `history` the manifests of the stages behind it.
    """
    model = subject.model
    fields = {
        "license": licence or "unknown",
        "library_name": "transformers",
        "tags": [parameter_names.huggingface_body(model.config)],
    }
    head = [
        "---",
        yaml.safe_dump(fields, allow_unicode=True, sort_keys=False).rstrip("\n"),
        "---",
        f"# {subject.name}",
        "",
        f"A network of the MobileBERT family for {USES[model.kind]}.",
    ]
    parts = [
        head,
        _architecture(subject),
        _history(subject, history),
        _scores(subject, files),
        _files(files, beside),
        _limits(subject, licence),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _architecture(subject: Subject) -> list[str]:
    config = subject.model.config
    rows = {
        "blocks": config.num_hidden_layers,
        "width between blocks": config.hidden_size,
        "width inside a block": config.intra_bottleneck_size,
        "feed-forward networks in a block": config.num_feedforward_networks,
        "attention heads": config.num_attention_heads,
        "vocabulary": f"{config.vocab_size:,}",
        "tokens at most": config.max_position_embeddings,
        "activation, norm": f"{config.hidden_act}, {config.normalization_type}",
        **_groups(config),
        "parameters without heads": f"{sizes.encoder_parameters(config):,}",
        "forward GFLOPs, length 128": f"{sizes.forward_flops(config, 128) / 1e9:.2f}",
    }
    return [
        "## Architecture",
        "",
        "| | |",
        "|---|---|",
        *(f"| {k} | {v} |" for k, v in rows.items()),
    ]


def _groups(config: ModelConfig) -> dict[str, str]:
    """Returns how many groups each layer has, in the order of the layers, where any has several."""
    if not sizes.has_groups(config):
        return {}
    layers = sizes.grouped_layers(config)
    names = ", ".join(name.removesuffix("_groups") for name in layers)
    return {f"groups of {names}": ", ".join(str(layer.groups) for layer in layers.values())}


def _history(subject: Subject, history: list[dict[str, Any]]) -> list[str]:
    lines = ["## How it came about", ""]
    if not history:
        return [*lines, f"Imported from `{subject.folder.name}`; nothing more is known."]
    lines += ["| stage | steps | digest |", "|---|---:|---|"]
    for manifest in history:
        steps = manifest.get("steps", "")
        counted = f"{steps:,}" if steps else ""
        lines.append(f"| {manifest['stage']} | {counted} | `{manifest['digest'][:16]}` |")
    begun = [manifest["output_layer"] for manifest in history if manifest.get("output_layer")]
    if begun:
        lines += ["", f"Output layer of the network that was fine-tuned: {begun[-1]}."]
    sources = [m["science"]["data.source"] for m in history if "data.source" in m["science"]]
    if sources:
        lines += ["", f"Pretraining text: `{sources[0]}` (digest above, stage prepare)."]
    return lines


def _scores(subject: Subject, files: list[dict[str, Any]]) -> list[str]:
    if subject.trial is None:
        return []
    metrics = subject.trial.metrics
    scored = [file for file in files if "metrics" in file]
    header = ["trained", *(FORMATS[file["format"]].title for file in scored)]
    rows = [
        f"| {name} | {value:.2f} | "
        + " | ".join(
            f"{file['metrics'][name]:.2f} ({file['metrics'][name] - value:+.2f})" for file in scored
        )
        for name, value in metrics.items()
    ]
    return [
        f"## Scores on the dev set of {subject.trial.task}",
        "",
        f"| per cent | {' | '.join(header)} |",
        f"|---|{'---:|' * len(header)}",
        *(row.rstrip(" |") + " |" for row in rows),
    ]


def _files(files: list[dict[str, Any]], beside: list[str]) -> list[str]:
    header = ["| file | MB | largest difference to the trained network |", "|---|---:|---|"]
    lines = ["## Files", "", *header]
    for file in files:
        worst = max((d["max_rel"] for d in file.get("differences", {}).values()), default=None)
        said = "the same parameters" if worst is None else f"{worst:.1e} of the largest output"
        lines.append(f"| `{file['file']}` | {file['bytes'] / 1e6:.1f} | {said} |")
    found = [*(note for file in files for note in file["notes"]), *beside]
    notes = [f"- {note}" for note in dict.fromkeys(found)]
    return [*lines, *(["", *notes] if notes else [])]


def _limits(subject: Subject, licence: str) -> list[str]:
    said = licence or "not stated; whoever publishes this network has to choose one"
    return [
        "## Use and limits",
        "",
        f"Meant for {USES[subject.model.kind]}. What it says of text unlike that of its training, "
        "in another language or about people, has not been measured.",
        "",
        f"Licence: {said}.",
    ]
