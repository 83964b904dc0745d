import numpy as np
import pytest

from mobilebert_jax.finetune.batching import (
    ScoringBatches,
    TrainingBatches,
    padded_length,
    shuffled,
)
from mobilebert_jax.finetune.features import FILLER, Rows

LENGTH, PAD = 64, 0


def rows_of(lengths: list[int]) -> Rows:
    """Returns rows of which every token is the row's number plus 1."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.repeat(np.arange(1, len(lengths) + 1), lengths).astype(np.int32)
    labels = {"labels": np.arange(len(lengths), dtype=np.int32)}
    return Rows(ids, starts, np.asarray(lengths, np.int32), labels, {})


LENGTHS = np.random.default_rng(0).integers(3, LENGTH + 1, 103).tolist()
ROWS = rows_of(LENGTHS)


def training(batch_size: int = 8, seed: int = 0, rows: list[int] | None = None) -> TrainingBatches:
    return TrainingBatches(
        ROWS,
        batch_size=batch_size,
        length=LENGTH,
        pad=PAD,
        seed=seed,
        rows_of_process=range(batch_size) if rows is None else rows,
    )


def test_every_epoch_has_every_row_once_in_another_order() -> None:
    feed = training()
    orders = []
    for epoch in range(2):
        steps = range(epoch * feed.epoch_steps, (epoch + 1) * feed.epoch_steps)
        batches = [feed[step] for step in steps]
        seen = [batch["labels"][batch["row_weights"] > 0].tolist() for batch in batches]
        orders.append([label for labels in seen for label in labels])
        assert sorted(orders[-1]) == list(range(len(ROWS)))
        assert sum(int((b["row_weights"] == 0).sum()) for b in batches) == 1  # 13 batches of 8
    assert orders[0] != orders[1]


def test_a_batch_depends_on_its_step_and_the_seed_alone() -> None:
    later = training()
    later[30]  # another epoch first
    for step in (0, 7, 20):
        one, other = training()[step], later[step]
        assert all(np.array_equal(one[name], other[name]) for name in one)
    differs = training(seed=1)[0]
    assert not np.array_equal(differs["input_ids"], training()[0]["input_ids"])


def test_processes_share_a_batch() -> None:
    whole = training()[5]
    parts = [training(rows=[0, 1, 2])[5], training(rows=[3, 4, 5, 6, 7])[5]]
    for name, values in whole.items():
        assert np.array_equal(np.concatenate([part[name] for part in parts]), values)


def test_rows_of_like_length_come_together_and_no_row_is_cut() -> None:
    lengths = np.random.default_rng(1).integers(3, LENGTH + 1, 2000)
    plan = shuffled(lengths, 8, LENGTH, seed=0, epoch=0)
    needed = [lengths[row[row != FILLER]].max() for row in plan.rows]
    assert all(n <= length for n, length in zip(needed, plan.lengths, strict=True))
    assert set(plan.lengths) == {16, 32, 48, 64}
    padding = sum(plan.lengths) * 8 / lengths.sum()
    assert padding < 1.3  # in shuffled order nearly every batch is of 64, which gives 1.9
    # Long and short batches are mixed: they do not come in order.
    assert np.corrcoef(np.arange(len(plan.lengths)), plan.lengths)[0, 1] == pytest.approx(
        0, abs=0.2
    )


def test_the_tokens_of_steps_are_counted() -> None:
    feed = training()
    for start, stop in ((0, 3), (5, 30), (13, 26), (20, 20)):
        expected = sum(feed[step]["input_ids"].size for step in range(start, stop))
        assert feed.tokens(start, stop) == expected


def test_scoring_sees_every_row_once_and_its_plan_says_where() -> None:
    feed = ScoringBatches(ROWS, batch_size=8, length=LENGTH, pad=PAD, rows_of_process=range(8))
    assert len(feed) == 13
    found = []
    for step in range(len(feed)):
        chosen, batch = feed.plan.rows[step], feed[step]
        real = chosen != FILLER
        assert batch["labels"][real].tolist() == chosen[real].tolist()
        assert (batch["row_weights"] > 0).tolist() == real.tolist()
        found += chosen[real].tolist()
    assert sorted(found) == list(range(len(ROWS)))
    assert feed.tokens(0, 13) == sum(feed[step]["input_ids"].size for step in range(13))


def test_fewer_rows_than_a_batch_are_filled_up() -> None:
    few = rows_of([3, 5])
    feed = TrainingBatches(
        few, batch_size=8, length=LENGTH, pad=PAD, seed=0, rows_of_process=range(8)
    )
    assert feed.epoch_steps == 1
    assert feed[0]["row_weights"].sum() == 2
    assert feed[0]["input_ids"].shape == (8, 16)


@pytest.mark.parametrize(
    ("longest", "length", "padded"),
    [(3, 128, 32), (32, 128, 32), (33, 128, 64), (97, 128, 128), (128, 128, 128), (9, 10, 10)],
)
def test_lengths_are_rounded_to_quarters(longest: int, length: int, padded: int) -> None:
    assert padded_length(longest, length) == padded
