"""The student's first parameters, some of them copied from the teacher.

Copied: the embedding tables and their projection, the masked-LM and the next-sentence head. Not
copied: the embedding norm (the student's NoNorm has no statistics to match), pooler, blocks.

Source: the authors' checkpoint initialisation, by variable name.
"""

import jax

from mobilebert_jax.objective.loss_terms import Params

COPIED = ("embeddings", "masked_lm", "next_sentence")
NOT_COPIED = ("embeddings", "norm")


def from_teacher(student: Params, teacher: Params) -> Params:
    """Returns `student` with the shared parts of `teacher`; raises ValueError on unequal shapes."""

    def choose(path: tuple, own: jax.Array, taught: jax.Array) -> jax.Array:
        keys = tuple(key.key for key in path)
        if keys[: len(NOT_COPIED)] == NOT_COPIED:
            return own
        if own.shape != taught.shape:
            raise ValueError(
                f"{'/'.join(keys)}: student has shape {own.shape}, teacher {taught.shape}"
            )
        return taught

    copied = {
        part: jax.tree_util.tree_map_with_path(
            lambda path, own, taught, part=part: choose(
                (jax.tree_util.DictKey(part), *path), own, taught
            ),
            student[part],
            teacher[part],
        )
        for part in COPIED
    }
    return {**student, **copied}
