"""What a file makes of a task's dev set.

Shapes: N rows, F tokens of all rows, T positions, C outputs.
"""

import numpy as np
from numpy.typing import NDArray

from mobilebert_jax.export.subjects import inputs_of
from mobilebert_jax.finetune.features import Rows
from mobilebert_jax.finetune.task import LoadedTask
from mobilebert_jax.interop.verification import Runner

_ROWS_AT_ONCE = 64


def score(task: LoadedTask, run: Runner, pad: int) -> dict[str, float]:
    """Returns the task's metrics, in per cent, of what `run` says of its dev sets."""
    return task.score({split: _outputs(task, run, rows, pad) for split, rows in task.dev.items()})


def _outputs(task: LoadedTask, run: Runner, rows: Rows, pad: int) -> NDArray[np.float32]:
    """Returns the outputs as `tasks.predict.predictor` does, [N, C] or [F, C]."""
    made = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        chosen = range(start, min(start + _ROWS_AT_ONCE, len(rows)))
        named = run(inputs_of(rows, chosen, task.length, pad))
        if task.kind == "span":
            outputs = np.stack([named["start_logits"], named["end_logits"]], axis=-1)
        else:
            outputs = named["logits"]
        if task.reads == "every":
            lengths = rows.lengths_N[start : chosen.stop]
            outputs = np.concatenate(
                [row_TC[:length] for row_TC, length in zip(outputs, lengths, strict=True)]
            )
        made.append(outputs.astype(np.float32))
    return np.concatenate(made)
