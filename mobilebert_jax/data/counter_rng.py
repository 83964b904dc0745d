"""Random numbers as a function of integers: no state, whole arrays at once, the same everywhere.

A stream is named by integers (seed, source, epoch, document ...), and its numbers are those of the
SplitMix64 generator (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)
that starts at the hash of the name: number `i` needs none of the numbers before it.
"""

import numpy as np
from numpy.typing import NDArray

Streams = NDArray[np.uint64]
Integers = int | NDArray[np.integer]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def streams(*name: Integers) -> Streams:
    """Returns the streams that integers name, arrays of them broadcast against each other."""
    key: Streams = np.zeros(1, np.uint64)
    for part in name:
        key = _mixed((key ^ np.asarray(part).astype(np.uint64)) + _GAMMA)
    return key


def bits(streams: Streams, number: Integers) -> NDArray[np.uint64]:
    """Returns number `number`, counted from 0, of each stream: 64 random bits."""
    # An array even of one number: NumPy warns of overflow, which is meant here, in single numbers.
    count = np.atleast_1d(number).astype(np.uint64) + np.uint64(1)
    return _mixed(streams + count * _GAMMA)


def uniform(streams: Streams, number: Integers) -> NDArray[np.float64]:
    """Returns number `number` of each stream, uniform in [0, 1)."""
    return (bits(streams, number) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(streams: Streams, number: Integers, count: Integers) -> NDArray[np.int64]:
    """Returns number `number` of each stream as a uniform integer in [0, count)."""
    return (uniform(streams, number) * count).astype(np.int64)


def heads(streams: Streams, tosses: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns how many of `tosses` fair coins show heads, for each stream."""
    words = np.arange(-(-int(np.max(tosses, initial=0)) // 64))
    shown = np.clip(tosses[:, None] - 64 * words, 0, 64).astype(np.uint64)
    # A shift by 64 is undefined; words of no toss are left out altogether.
    unused = (np.uint64(64) - shown) % np.uint64(64)
    kept = np.where(shown > 0, bits(streams[:, None], words) >> unused, np.uint64(0))
    return np.bitwise_count(kept).sum(axis=1, dtype=np.int64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> _SHIFTS[0])) * _FACTORS[0]
    x = (x ^ (x >> _SHIFTS[1])) * _FACTORS[1]
    return x ^ (x >> _SHIFTS[2])
