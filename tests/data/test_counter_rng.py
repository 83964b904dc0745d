"""Random numbers by name and number: uniform, apart, and the same everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilebert_jax.data import counter_rng

COUNT = 200_000


def split_mix(state: int, count: int) -> list[int]:
    """The generator as its authors describe it, one number after the other."""
    found, most = [], 2**64
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % most
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % most
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % most
        found.append(z ^ (z >> 31))
    return found


@given(st.integers(0, 2**64 - 1))
def test_a_stream_is_split_mix(state):
    stream = np.array([state], np.uint64)
    assert [int(counter_rng.bits(stream, i)[0]) for i in range(5)] == split_mix(state, 5)
    assert counter_rng.bits(stream, np.arange(5)).tolist() == split_mix(state, 5)


def test_split_mix_is_the_published_one():
    # The first numbers from the state 1234567, as in the generator's public test vectors.
    assert split_mix(1234567, 2) == [6457827717110365317, 3203168211198807973]


def test_names_are_apart():
    names = [(0,), (1,), (-1,), (0, 0), (0, 1), (1, 0), (2**40, 0), (0, 0, 0)]
    assert len({int(counter_rng.streams(*name)[0]) for name in names}) == len(names)
    grid = counter_rng.streams(7, np.arange(300)[:, None], np.arange(300))
    assert grid.shape == (300, 300) and len(np.unique(grid)) == 90_000
    assert grid[12, 250] == counter_rng.streams(7, 12, 250)[0]


@pytest.mark.parametrize("numbers", ["of one stream", "first of many streams"])
def test_numbers_are_uniform_and_independent(numbers):
    if numbers == "of one stream":
        x = counter_rng.uniform(counter_rng.streams(3), np.arange(COUNT))
    else:
        x = counter_rng.uniform(counter_rng.streams(3, np.arange(COUNT)), 0)
    assert x.min() >= 0 and x.max() < 1
    counts = np.histogram(x, 100, (0, 1))[0]
    # Chi-square with 99 degrees of freedom exceeds 170 once in 100,000 seeds.
    assert ((counts - COUNT / 100) ** 2 / (COUNT / 100)).sum() < 170
    for distance in (1, 2, 64):
        correlation = np.corrcoef(x[:-distance], x[distance:])[0, 1]
        assert abs(correlation) < 5 / COUNT**0.5


def test_below_is_every_integer_below():
    drawn = counter_rng.below(counter_rng.streams(0), np.arange(COUNT), 7)
    counts = np.bincount(drawn)
    assert len(counts) == 7 and counts.min() > COUNT / 7 * 0.97
    assert counter_rng.below(counter_rng.streams(0), np.arange(50), np.arange(1, 51)).max() < 50
    assert (counter_rng.below(counter_rng.streams(0), np.arange(50), 1) == 0).all()


@pytest.mark.parametrize("tosses", [0, 1, 63, 64, 65, 300])
def test_heads_are_half_of_the_tosses(tosses):
    shown = counter_rng.heads(counter_rng.streams(5, np.arange(20_000)), np.full(20_000, tosses))
    assert shown.min() >= 0 and shown.max() <= tosses
    deviation = tosses**0.5 / 2
    assert shown.mean() == pytest.approx(tosses / 2, abs=5 * deviation / 20_000**0.5)
    assert shown.std() == pytest.approx(deviation, rel=0.05)


def test_heads_of_different_numbers_of_tosses():
    tosses = np.array([0, 64, 3, 200])
    shown = counter_rng.heads(counter_rng.streams(np.arange(4)), tosses)
    alone = [counter_rng.heads(counter_rng.streams(i), tosses[i : i + 1])[0] for i in range(4)]
    assert shown.tolist() == alone
