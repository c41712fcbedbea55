"""Chance that depends on nothing but who asks and for the how-manieth time: the same picture in every scenario.

A stream of random numbers gives each event the next number, so that one frame more shifts the luck of all that follow.
Here picture n of a device always has the same luck, whatever else happens, in whatever order and process: two scenarios
differ by what was changed in them, and not by their dice. It is a counter put through a mixing function (splitmix64;
Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), and integers only, so that every
Python gives the same; the 64 bits of a draw are cut into several numbers.
"""

from __future__ import annotations

from hashlib import sha256
from statistics import NormalDist

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15

NORMAL = tuple(round(NormalDist().inv_cdf((n + 0.5) / 4096), 9) for n in range(4096))
"""The standard normal distribution at the middles of 4,096 equal shares: a draw of 12 bits is an index."""


def key_of(*names: object) -> int:
    """A number for whoever has these names, 64 bits."""
    return int.from_bytes(sha256("\0".join(map(str, names)).encode()).digest()[:8], "big")


def draw(key: int, number: int) -> int:
    """64 random bits: those of this number."""
    z = (key + number * _STEP) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def share(key: int, number: int) -> float:
    """A number from 0 to below 1: that of this number."""
    return (draw(key, number) >> 11) * 2.0**-53
