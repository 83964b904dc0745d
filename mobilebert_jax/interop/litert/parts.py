"""Parts of a network in a LiteRT graph, found by the names that the converter gives operations.

An operation is called after all operations of the program that became one with it, its own first:
`jit(forward)/block_3/Block/attention/query/dot_general;jit(forward)/...;`.
"""

import re
from collections.abc import Iterable

from mobilebert_jax.config.schema import INT8_DEFAULT, INT8_PARTS, InputError, Int8Part, nearest
from mobilebert_jax.interop.forward import APP_SCOPE
from mobilebert_jax.model.sizes import ModelConfig

_OWN = r"^[^;]*"
_BLOCK = r"/block_\d+/Block/"
_PROJECTIONS = r"attention/(query|key|value)/"
_ENCODED = "serving_default_sequence_output"
_HEADS = rf"Pooler|TaskOutput|NextSentence|MaskedLM(?!/norm)|{APP_SCOPE}"

_NAMES: dict[Int8Part, str] = {
    "embeddings": _OWN + r"/Embeddings/(?!norm/)",
    "bottlenecks": _OWN
    + _BLOCK
    + r"(Block\._inputs/Block\._bottleneck/(input|query_key)/|output/|add1;)",
    # Called after the NoNorm before it where its bias has taken up the NoNorm's shift.
    "query_key_value": _BLOCK + _PROJECTIONS,
    "attention_scores": _OWN + _BLOCK + r"attention/(?!query/|key/|value/|b\.\.\.ts,)",
    "attention_context": _OWN + _BLOCK + r"attention/b\.\.\.ts,",
    "attention_output": _OWN + _BLOCK + r"attention_output/",
    "attention_residual": _OWN + _BLOCK + r"add;",
    "feedforward_input": _OWN + _BLOCK + r"Block\._feedforward/(feedforward_\d+_in/|composite)",
    "feedforward_output": _OWN + _BLOCK + r"Block\._feedforward/feedforward_\d+_out/",
    "feedforward_residual": _OWN + _BLOCK + r"Block\._feedforward/add\d*;",
    "norms": rf"^(?!.*/{_PROJECTIONS})[^;]*norm/|^{_ENCODED}",
    "head": rf"^([^;]*/({_HEADS})/|(?!{_ENCODED})serving_)",
}
MASKED_LM_NORM = _OWN + r"/MaskedLM/norm/"

DEFAULTS: dict[str, tuple[Int8Part, ...]] = {
    "layer_norm": ("feedforward_output", "feedforward_residual"),
    "no_norm": (),
}
"""Parts that stay in float32 by `normalization_type`. Single features of what the LayerNorm
after a feed-forward network reads were seen to be a hundred times as large as the median one; a
common scale of 8 bits leaves few values for the others.

Source: Bondarenko et al., 2021, "Understanding and Overcoming the Challenges of Efficient
Transformer Quantization", section 3."""


def chosen(config: ModelConfig, names: Iterable[str]) -> tuple[Int8Part, ...]:
    """Returns the parts that `names` name, `INT8_DEFAULT` being those of the network's norm.

    Raises InputError for a name that is not one of `INT8_PARTS`.
    """
    allowed = (INT8_DEFAULT, *INT8_PARTS)
    found: set[str] = set()
    for name in names:
        if name not in allowed:
            raise InputError(
                f"there is no part {name!r} of a network in 8 bits; there are "
                f"{', '.join(allowed)}; nearest: {nearest(name, allowed)}"
            )
        found |= set(DEFAULTS[config.normalization_type] if name == INT8_DEFAULT else (name,))
    return tuple(part for part in INT8_PARTS if part in found)


def check(wanted: Iterable[Int8Part], operations: Iterable[str]) -> None:
    """Raises InputError for a part of `wanted` to which none of `operations`, names, belongs.

    The network does not have it, or the converter now calls its operations something else; the file
    would be in 8 bits where float32 was asked for, and nobody would know.
    """
    names = list(operations)
    present = [part for part in INT8_PARTS if any(re.search(_NAMES[part], n) for n in names)]
    if absent := [part for part in wanted if part not in present]:
        raise InputError(
            f"export.int8_float_parts: nothing in this network's LiteRT file is called like "
            f"{', '.join(absent)}; it has {', '.join(present) or 'no known part'}"
        )


def names_of(part: Int8Part) -> str:
    """Returns a regular expression of the names of a part's operations."""
    return _NAMES[part]


def names_of_block(number: int) -> str:
    """Returns a regular expression of the names of a block's operations."""
    return _OWN + rf"/block_{number}/Block/"
