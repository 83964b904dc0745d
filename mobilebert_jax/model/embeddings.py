"""Word, position and segment embeddings, with the trigram input of the compact models.

Shapes: B batch, T positions, E embedding width, D hidden width.
Source: paper section 3.1 and Appendix on embedding factorisation ("trigram").
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mobilebert_jax.model.dropout import Dropout
from mobilebert_jax.model.layers import Dense, Network, Norm, parameter, weight_init
from mobilebert_jax.sharding.rules import keep_rows


class Embeddings(nn.Module):
    """Token ids to the features that the first block reads, [B, T] -> [B, T, D]."""

    network: Network

    @nn.compact
    def __call__(
        self,
        ids_BT: jax.Array,
        segments_BT: jax.Array,
        mask_BT: jax.Array,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        config, dtype = self.network.config, self.network.dtype

        def table(name: str, rows: int, axis: str, width: int, width_axis: str) -> jax.Array:
            return parameter(self, name, weight_init(config), (rows, width), (axis, width_axis))

        word_VE = table("word", config.vocab_size, "vocab", config.embedding_size, "embed")
        type_D = table("type", config.type_vocab_size, "type", config.hidden_size, "hidden")
        position_D = table(
            "position", config.max_position_embeddings, "position", config.hidden_size, "hidden"
        )
        x_BTD = keep_rows(look_up(self.network, word_VE, ids_BT))
        if config.trigram_input:
            if config.trigram_masks_padding:
                x_BTD = x_BTD * mask_BT[..., None]
            x_BTD = Dense(
                config, config.hidden_size, ("embed", "hidden"), dtype, name="projection"
            )(trigram(x_BTD))
        x_BTD = x_BTD + keep_rows(look_up(self.network, type_D, segments_BT))
        x_BTD = x_BTD + position_D[: ids_BT.shape[1]]
        x_BTD = Norm(config.normalization_type, "hidden", dtype, name="norm")(x_BTD)
        return Dropout(config.hidden_dropout_prob)(x_BTD, deterministic=deterministic)


def look_up(network: Network, table: jax.Array, ids_BT: jax.Array) -> jax.Array:
    """Returns the rows of `table` [rows, width] that `ids_BT` name, [B, T, width].

    With `network.named_operations` the program says by name that this is a look-up in a table,
    whose rows a converter can then keep in 8 bits; ids must lie in the table.
    """
    if not network.named_operations:
        return jnp.take(table, ids_BT, axis=0)

    def rows(ids_N: jax.Array, table: jax.Array) -> jax.Array:
        return jnp.take(table, ids_N, axis=0, mode="clip")

    found = jax.lax.composite(rows, "odml.embedding_lookup")(ids_BT.reshape(-1), table)
    return found.reshape(*ids_BT.shape, table.shape[1])


def trigram(x_BTE: jax.Array) -> jax.Array:
    """Returns the embeddings of the next, current and previous token side by side, [B, T, 3E].

    Beyond either end of the sequence there are zeros.
    """
    following = jnp.pad(x_BTE[:, 1:], ((0, 0), (0, 1), (0, 0)))
    preceding = jnp.pad(x_BTE[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return jnp.concatenate([following, x_BTE, preceding], axis=-1)
