"""Which parts of a network stay in float32 in a full-integer file."""

import re

import pytest

from mobilebert_jax.config.schema import INT8_PARTS, InputError
from mobilebert_jax.interop.litert import parts
from tests.interop import exchanged

BLOCK = "jit(forward)/block_3/Block/"
BOTTLENECK = BLOCK + "Block._inputs/Block._bottleneck/"
FEEDFORWARD = BLOCK + "Block._feedforward/"
OPERATIONS = {
    "jit(forward)/Embeddings/add;jit(forward)/Embeddings/reshape;": "embeddings",
    "jit(forward)/Embeddings/norm/mul;": "norms",
    BOTTLENECK + "input/dot_general;": "bottlenecks",
    f"{BLOCK}attention/key/dot_general;{BLOCK}attention/query/dot_general;": "query_key_value",
    f"{BOTTLENECK}query_key_norm/add;{BLOCK}attention/query/dot_general;": "query_key_value",
    BLOCK + "attention/bt...c,bs...c->b...ts/dot_general2;": "attention_scores",
    f"{BLOCK}attention/div;{BLOCK}attention/exp;": "attention_scores",
    BLOCK + "attention/b...ts,bs...c->bt...c/dot_general1;": "attention_context",
    BLOCK + "attention_output/dot_general6;": "attention_output",
    BLOCK + "attention_output/dot_general;": "attention_output",
    BLOCK + "add;": "attention_residual",
    BLOCK + "add1;": "bottlenecks",
    BLOCK + "attention_norm/add1;": "norms",
    FEEDFORWARD + "feedforward_1_in/dot_general;": "feedforward_input",
    FEEDFORWARD + "composite5;": "feedforward_input",
    FEEDFORWARD + "feedforward_0_out/dot_general;": "feedforward_output",
    FEEDFORWARD + "add2;": "feedforward_residual",
    "jit(forward)/Pooler/tanh;": "head",
    "jit(forward)/app_output/mul;": "head",
    "serving_default_logits_output;": "head",
    "serving_default_sequence_output_output;": "norms",
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_belongs_to_one_part(operation: str) -> None:
    found = [part for part in INT8_PARTS if re.search(parts.names_of(part), operation)]
    assert found == [OPERATIONS[operation]]


def test_a_block_is_told_from_another() -> None:
    assert re.search(parts.names_of_block(3), FEEDFORWARD + "add2;")
    assert not re.search(parts.names_of_block(3), BLOCK.replace("3", "13") + "add;")
    shared = f"{BLOCK.replace('3', '4')}attention_norm/add;{BLOCK}attention_norm/add;"
    assert not re.search(parts.names_of_block(3), shared), "its own name is the first"


def test_the_default_depends_on_the_norm() -> None:
    layer_norm, no_norm = exchanged.CONFIGS["bert"], exchanged.CONFIGS["released"]
    assert parts.chosen(layer_norm, ["default"]) == ("feedforward_output", "feedforward_residual")
    assert parts.chosen(no_norm, ["default"]) == ()
    assert parts.chosen(layer_norm, []) == ()
    with_head = parts.chosen(no_norm, ["head", "default", "embeddings", "head"])
    assert with_head == ("embeddings", "head"), "each once, in the order of the network"


def test_a_misspelt_part_gets_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no part 'feedforward_out'.*nearest: feedforward_output"):
        parts.chosen(exchanged.CONFIGS["bert"], ["feedforward_out"])


def test_a_part_that_is_not_in_the_file_is_refused() -> None:
    parts.check(["feedforward_output", "norms"], OPERATIONS)
    bert = [name for name, part in OPERATIONS.items() if part != "bottlenecks"]
    with pytest.raises(InputError, match=r"called like bottlenecks; it has embeddings, query_key"):
        parts.check(["head", "bottlenecks"], bert)
    with pytest.raises(InputError, match=r"feedforward_residual; it has no known part"):
        parts.check(["feedforward_residual"], ["StatefulPartitionedCall:0;"])
