"""The targets by name: what each tries on an input, the inputs that it begins with, and how it changes them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.fuzz import arrays, graphs, images, manifests, samples, shards

__all__ = ["NAMES", "Target", "target"]

# Changes some bytes, to at most so many: libFuzzer's own way.
Bytes = Callable[[bytes, int], bytes]


@dataclass(frozen=True)
class Target:
    """Something that is given bytes.

    Attributes:
        try_on: raises nothing but what is a finding.
        seeds: well-formed inputs to begin with.
        change: of (input, random numbers, libFuzzer's way, most bytes) another input, whose checksums are right.
        longest: most bytes of an input.
    """

    try_on: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    change: Callable[[bytes, Random, Bytes, int], bytes]
    longest: int


_TARGETS: Final = {
    "images": Target(images.try_on, images.seeds, images.change, 1 << 16),
    "samples": Target(samples.try_on, samples.seeds, samples.change, 1 << 14),
    "manifest": Target(manifests.try_on, manifests.seeds, manifests.change, 1 << 15),
    "graphs": Target(graphs.try_on, graphs.seeds, graphs.change, 1 << 17),
    "arrays": Target(arrays.try_on, arrays.seeds, arrays.change, 1 << 15),
    "shards": Target(shards.try_on, shards.seeds, shards.change, 1 << 15),
}
NAMES: Final = tuple(_TARGETS)


@functools.cache
def target(name: str) -> Target:
    """The target of a name."""
    return _TARGETS[name]
