"""The sizes of the family: one set of settings describes every network of the paper.

IB-BERT_LARGE, MobileBERT, MobileBERT_TINY, BERT_BASE, BERT_LARGE and SqueezeBERT are values of
`ModelConfig`, not classes of their own. Parameter and FLOP counts are computed here from the
settings alone, so that a plan can be printed without building a network (this file must not import
jax).

Source: MobileBERT (Sun et al., ACL 2020), Table 1 and section 3; the authors' model configurations;
SqueezeBERT (Iandola et al., 2020, arXiv 2006.11316).
"""

import dataclasses
import math
from typing import Literal, NamedTuple

from mobilebert_jax import bounds

Activation = Literal["gelu_tanh", "gelu", "relu", "relu6"]
Norm = Literal["layer_norm", "no_norm"]
QueryKeySource = Literal["block_input", "shared_bottleneck", "bottleneck_input"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Settings of one network; the defaults are the released MobileBERT student."""

    vocab_size: bounds.VocabularyOrNone = 0
    """Rows of the word table; 0 takes the size of the tokenizer."""
    type_vocab_size: bounds.Few = 2
    max_position_embeddings: bounds.Width = 512
    hidden_size: bounds.Width = 512
    """Width of the features that pass between blocks."""
    intra_bottleneck_size: bounds.Width = 128
    """Width inside a block; equal to `hidden_size` in a network without bottlenecks."""
    embedding_size: bounds.Width = 128
    """Width of the word table."""
    intermediate_size: bounds.Width = 512
    """Inner width of a feed-forward network."""
    num_hidden_layers: bounds.Few = 24
    num_attention_heads: bounds.Few = 4
    num_feedforward_networks: bounds.Few = 4
    """Feed-forward networks stacked in one block."""
    hidden_act: Activation = "relu"
    normalization_type: Norm = "no_norm"
    hidden_dropout_prob: bounds.NotAll = 0.0
    attention_probs_dropout_prob: bounds.NotAll = 0.1
    trigram_input: bool = True
    """Embed each position from the words next to it as well, and project to `hidden_size`."""
    trigram_masks_padding: bool = True
    """Keep the embedding of padding out of the trigram of the last word. Published weights were
    trained without this."""
    use_bottleneck: bool = True
    query_key: QueryKeySource = "shared_bottleneck"
    """What queries and keys read: the block's input (teacher, and the student of the paper's
    tables), a bottleneck that both share (released student), or the block's own bottleneck, which
    then feeds the values too (TINY)."""
    pooler: bool = False
    """Pass the first position through dense + tanh before classification."""
    initializer_range: bounds.Deviation = 0.02
    q_groups: bounds.Few = 1
    """Groups of the query layer: each group of its outputs reads its own group of the inputs alone,
    as in a grouped convolution of width 1. 1 is a dense layer. SqueezeBERT has 4."""
    k_groups: bounds.Few = 1
    """Groups of the key layer."""
    v_groups: bounds.Few = 1
    """Groups of the value layer."""
    post_attention_groups: bounds.Few = 1
    """Groups of the layer after attention."""
    intermediate_groups: bounds.Few = 1
    """Groups of the first layer of every feed-forward network."""
    output_groups: bounds.Few = 1
    """Groups of the second layer of every feed-forward network."""


IB_BERT_LARGE = ModelConfig(
    vocab_size=30522,
    hidden_size=512,
    intra_bottleneck_size=1024,
    intermediate_size=4096,
    num_attention_heads=4,
    num_feedforward_networks=1,
    hidden_act="gelu_tanh",
    normalization_type="layer_norm",
    hidden_dropout_prob=0.1,
    query_key="block_input",
    pooler=True,
)
MOBILEBERT = ModelConfig(vocab_size=30522)
MOBILEBERT_PAPER_FORM = dataclasses.replace(MOBILEBERT, query_key="block_input")
MOBILEBERT_TINY = dataclasses.replace(
    MOBILEBERT, num_feedforward_networks=2, query_key="bottleneck_input"
)
MOBILEBERT_WITHOUT_OPT = dataclasses.replace(
    MOBILEBERT, normalization_type="layer_norm", hidden_act="gelu_tanh"
)
MOBILEBERT_RELU6 = dataclasses.replace(MOBILEBERT, hidden_act="relu6")
BERT_BASE = ModelConfig(
    vocab_size=30522,
    hidden_size=768,
    intra_bottleneck_size=768,
    embedding_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_feedforward_networks=1,
    hidden_act="gelu_tanh",
    normalization_type="layer_norm",
    hidden_dropout_prob=0.1,
    trigram_input=False,
    use_bottleneck=False,
    query_key="block_input",
    pooler=True,
)
BERT_LARGE = dataclasses.replace(
    BERT_BASE,
    hidden_size=1024,
    intra_bottleneck_size=1024,
    embedding_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
)
SQUEEZEBERT = dataclasses.replace(
    BERT_BASE,
    hidden_act="gelu",
    q_groups=4,
    k_groups=4,
    v_groups=4,
    intermediate_groups=4,
    output_groups=4,
)

PUBLISHED = {
    "ib_bert_large": IB_BERT_LARGE,
    "mobilebert": MOBILEBERT,
    "mobilebert_paper_form": MOBILEBERT_PAPER_FORM,
    "mobilebert_tiny": MOBILEBERT_TINY,
    "mobilebert_without_opt": MOBILEBERT_WITHOUT_OPT,
    "mobilebert_relu6": MOBILEBERT_RELU6,
    "bert_base": BERT_BASE,
    "bert_large": BERT_LARGE,
    "squeezebert": SQUEEZEBERT,
}

_ARRAYS = (
    ("vocab_size", "embedding_size"),
    ("type_vocab_size", "hidden_size"),
    ("max_position_embeddings", "hidden_size"),
    ("num_hidden_layers", "hidden_size", "intra_bottleneck_size"),
    ("num_hidden_layers", "num_feedforward_networks", "intra_bottleneck_size", "intermediate_size"),
)
_MOST_NUMBERS = 2**31 - 1
"""In the arrays of one kind, those of all blocks together: indices are 32 bits wide."""


def problems(config: ModelConfig) -> list[str]:
    """Returns one sentence for each setting that is out of bounds, or else contradicts another."""
    return [*bounds.problems(config).values()] or contradictions(config)


def contradictions(config: ModelConfig) -> list[str]:
    """Returns one sentence for each setting, within its bounds, that contradicts another."""
    found = [
        f"{' x '.join(f'{name}={getattr(config, name)}' for name in names)} are too many numbers; "
        f"at most {_MOST_NUMBERS:,} are possible"
        for names in _ARRAYS
        if math.prod(getattr(config, name) for name in names) > _MOST_NUMBERS
    ]
    if found:
        return found
    width, heads = config.intra_bottleneck_size, config.num_attention_heads
    if width % heads:
        divisors = [h for h in range(1, width + 1) if width % h == 0]
        found.append(
            f"num_attention_heads={heads} does not divide intra_bottleneck_size={width}; "
            f"nearest that does: {min(divisors, key=lambda h: abs(h - heads))}"
        )
    if not config.use_bottleneck and width != config.hidden_size:
        found.append(
            "use_bottleneck=False needs intra_bottleneck_size equal to "
            f"hidden_size={config.hidden_size}, not {width}"
        )
    if not config.use_bottleneck and config.query_key != "block_input":
        found.append(
            f"query_key={config.query_key!r} needs use_bottleneck=True; without bottlenecks "
            "queries and keys can only read 'block_input'"
        )
    if not config.trigram_input and config.embedding_size != config.hidden_size:
        found.append(
            "trigram_input=False needs embedding_size equal to "
            f"hidden_size={config.hidden_size}, not {config.embedding_size}"
        )
    if config.embedding_size > config.hidden_size:
        found.append(
            f"embedding_size={config.embedding_size} is wider than hidden_size={config.hidden_size}"
        )
    return found + _undivided(config)


def _undivided(config: ModelConfig) -> list[str]:
    found = []
    for name, layer in grouped_layers(config).items():
        common = math.gcd(layer.inputs, layer.outputs)
        if common % layer.groups:
            divisors = [groups for groups in range(1, common + 1) if common % groups == 0]
            found.append(
                f"{name}={layer.groups} does not divide the {layer.inputs} inputs and "
                f"{layer.outputs} outputs of its layer; nearest that does: "
                f"{min(divisors, key=lambda groups: abs(groups - layer.groups))}"
            )
    return found


class GroupedLayer(NamedTuple):
    """A dense layer that may have groups."""

    inputs: int
    outputs: int
    groups: int

    @property
    def weights(self) -> int:
        """Numbers in its kernel, which are its multiply-adds for a token too."""
        return self.inputs * self.outputs // self.groups


def grouped_layers(config: ModelConfig) -> dict[str, GroupedLayer]:
    """Returns the layers of a block that may have groups, by the setting that says how many.

    Each of the last two is there once in every feed-forward network.
    """
    b, i = config.intra_bottleneck_size, config.intermediate_size
    widths = {
        "q_groups": (_query_key_width(config), b),
        "k_groups": (_query_key_width(config), b),
        "v_groups": (_value_width(config), b),
        "post_attention_groups": (b, b),
        "intermediate_groups": (b, i),
        "output_groups": (i, b),
    }
    return {name: GroupedLayer(*pair, getattr(config, name)) for name, pair in widths.items()}


def is_bert_form(config: ModelConfig) -> bool:
    """Whether a network is wired like BERT: no bottlenecks, no trigram, LayerNorm, and one
    feed-forward network in a block."""
    plain = not (config.use_bottleneck or config.trigram_input)
    one_feedforward = config.num_feedforward_networks == 1
    return plain and one_feedforward and config.normalization_type == "layer_norm"


def has_groups(config: ModelConfig) -> bool:
    """Whether a layer has more groups than one, as in SqueezeBERT."""
    return any(layer.groups > 1 for layer in grouped_layers(config).values())


def _query_key_width(config: ModelConfig) -> int:
    return config.hidden_size if config.query_key == "block_input" else config.intra_bottleneck_size


def _value_width(config: ModelConfig) -> int:
    return (
        config.intra_bottleneck_size
        if config.query_key == "bottleneck_input"
        else config.hidden_size
    )


def block_parameters(config: ModelConfig) -> int:
    """Number of parameters of one block (paper Table 1): weights, biases, norms."""
    h, b, i = config.hidden_size, config.intra_bottleneck_size, config.intermediate_size

    def dense_and_norm(d_in: int, d_out: int) -> int:
        return d_in * d_out + 3 * d_out

    total = _weights(config) + 3 * b + 3 * b
    total += config.num_feedforward_networks * (i + 3 * b)
    if config.use_bottleneck:
        total += dense_and_norm(h, b) + dense_and_norm(b, h)
    if config.query_key == "shared_bottleneck":
        total += dense_and_norm(h, b)
    return total


def _weights(config: ModelConfig) -> int:
    """Weights of attention and of all feed-forward networks of a block, without bottlenecks."""
    networks = config.num_feedforward_networks
    return sum(
        layer.weights * (networks if name in ("intermediate_groups", "output_groups") else 1)
        for name, layer in grouped_layers(config).items()
    )


def embedding_parameters(config: ModelConfig) -> int:
    """Number of parameters of the embedding block, its norm included."""
    total = config.vocab_size * config.embedding_size
    total += (
        config.type_vocab_size + config.max_position_embeddings
    ) * config.hidden_size + 2 * config.hidden_size
    if config.trigram_input:
        total += 3 * config.embedding_size * config.hidden_size + config.hidden_size
    return total


def encoder_parameters(config: ModelConfig) -> int:
    """Number of parameters without heads; the pooler counts when the network has one."""
    pooler = config.hidden_size * config.hidden_size + config.hidden_size if config.pooler else 0
    return (
        embedding_parameters(config) + config.num_hidden_layers * block_parameters(config) + pooler
    )


def pretraining_parameters(config: ModelConfig) -> int:
    """Number of parameters with the masked-LM and next-sentence heads (word table counted once)."""
    h = config.hidden_size
    masked_lm = h * h + h + 2 * h + config.vocab_size * (1 + h - config.embedding_size)
    return encoder_parameters(config) + masked_lm + 2 * h + 2


def forward_flops(config: ModelConfig, length: int, *, layers: int | None = None) -> int:
    """FLOPs of one sequence's forward pass through the encoder, 2 per multiply-add.

    Matmuls only, heads excluded, as the paper counts. `layers` counts that many blocks
    instead of all; the trigram projection is included where there is one.
    """
    h, b = config.hidden_size, config.intra_bottleneck_size
    per_token = _weights(config) + 2 * length * b
    if config.use_bottleneck:
        per_token += 2 * h * b
    if config.query_key == "shared_bottleneck":
        per_token += h * b
    total = (config.num_hidden_layers if layers is None else layers) * per_token
    if config.trigram_input:
        total += 3 * config.embedding_size * h
    return 2 * length * total
