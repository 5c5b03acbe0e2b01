"""SS-CAM's noise: a counter-based generator, whose numbers any language and any ONNX graph can make.

With mix a hash of 32 bits (`mix`) and key a hash of seed and sample, value i of a sample of the noise is

    n_i = sqrt(-2 ln u) cos(2 pi v),   u = uniform(mix(mix(2i) ^ key)),   v = uniform(mix(mix(2i + 1) ^ key)),

the transform of Box and Muller ("A note on the generation of random normal deviates", 1958) of two uniform numbers.
Nothing is carried from one value to the next, so the numbers depend on no chunk size, thread or provider. They fall
within +-5.8, and have a period of 2^31 values per sample.
"""

import functools
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ortcam.methods import Noise
from ortcam.scoring.upsampling import upsample
from ortcam.support.blas import single_threaded

__all__ = ["FACTORS", "SHIFTS", "UNIFORM_BITS", "draw_noise", "draw_uniform", "noise_key", "noise_of", "noise_spread"]

# mix is "lowbias32" of Chris Wellons' search for hashes of integers (2018): xor with a shift and multiply, twice.
SHIFTS: Final = (16, 15, 16)
FACTORS: Final = (0x7FEB352D, 0x846CA68B)
UNIFORM_BITS: Final = 23  # the first bits of a hash, so that with a half added float32 holds them exactly
_GOLDEN: Final = 0x9E3779B9  # 2^32 over the golden ratio: zero, which mix keeps, is nobody's state
_WORD: Final = 0xFFFFFFFF
_CHANNELS_AT_ONCE: Final = 8

Words = NDArray[np.uint32]


def noise_key(seed: int, sample: int) -> int:
    """The key of a sample, 32 bits, from the words of the seed, lowest first, and the number of the sample."""
    words = [seed & _WORD]
    while seed := seed >> 32:
        words.append(seed & _WORD)
    key = 0
    for word in (*words, sample):
        key = int(_mix(np.array([(key + _GOLDEN + word) & _WORD], np.uint32))[0])
    return key


def draw_noise(seed: int, sample: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Sample `sample` of the noise of a seed: float32 of a shape, counted in C order, of unit variance.

    Args:
        seed: from 0.
        sample: from 0.
        shape: of at most 2^31 values.
    """
    u, v = _uniform(_mix(_hashed_counters(math.prod(shape)) ^ np.uint32(noise_key(seed, sample))))
    noise: NDArray[np.float32] = np.sqrt(np.float32(-2) * np.log(u)) * np.cos(np.float32(2 * np.pi) * v)
    return noise.reshape(shape)


def draw_uniform(seed: int, sample: int, count: int) -> NDArray[np.float64]:
    """Numbers in (0,1) for sample `sample` of a seed, float64 [count]: independent of its noise.

    Value i is uniform(mix(mix(i) ^ mix(key))), whose key is that of the noise.

    Args:
        seed: from 0.
        sample: from 0.
        count: how many; a smaller count gives the first of them.
    """
    key = _mix(np.array([noise_key(seed, sample)], np.uint32))[0]
    return _uniform(_mix(_mix(np.arange(count, dtype=np.uint32)) ^ key)).astype(np.float64)


def noise_of(image: NDArray[np.float32], noise: Noise, sample: int) -> NDArray[np.float32]:
    """Sample i of the noise, float32 [1,C,H,W], unit variance for std="authors" (the graph multiplies by sigma_k).

    Noise on the activation is (s(U(A)) + n) * X = s(U(A)) * X + n * X, so it too is added to the masked image.
    """
    if noise.on == "activation":
        return draw_noise(noise.seed, sample, image.shape[-2:]) * image
    return draw_noise(noise.seed, sample, image.shape)


@single_threaded
def noise_spread(image: NDArray[np.float32], maps: NDArray[np.float32], noise: Noise | None) -> NDArray[np.float32]:
    """sigma_k, float32 [C]: the given std, or (2 / (max M_k - min M_k))^2 of the masked image M_k = X * s(U(A_k))."""
    if noise is None or noise.std != "authors":
        return np.full(len(maps), noise.std if noise else 0.0, np.float32)
    spread = np.zeros(len(maps), np.float32)
    height, width = image.shape[-2:]
    # A mask is nowhere negative, so the largest value of M_k is that of the mask times the largest colour of X.
    low, high = image[0].min(axis=0), image[0].max(axis=0)
    for start in range(0, len(maps), _CHANNELS_AT_ONCE):
        part = slice(start, start + _CHANNELS_AT_ONCE)
        mask = upsample(maps[part], height, width)
        span = (mask * high).max(axis=(1, 2)) - (mask * low).min(axis=(1, 2))
        spread[part] = np.divide(2, span, out=np.zeros_like(span), where=span > 0) ** 2
    return spread


@functools.lru_cache(maxsize=1)
def _hashed_counters(values: int) -> Words:
    """mix(2i) and mix(2i + 1), [2,values], which all samples of an image have in common."""
    return _mix(np.arange(2 * values, dtype=np.uint32).reshape(-1, 2).T.copy())


def _mix(words: Words) -> Words:
    first, second, third = (np.uint32(shift) for shift in SHIFTS)
    words = (words ^ (words >> first)) * np.uint32(FACTORS[0])
    words = (words ^ (words >> second)) * np.uint32(FACTORS[1])
    return words ^ (words >> third)


def _uniform(words: Words) -> NDArray[np.float32]:
    """In (0,1), the middles of 2^23 equal parts."""
    parts = (words >> np.uint32(32 - UNIFORM_BITS)).astype(np.float32)
    return (parts + np.float32(0.5)) * np.float32(2.0**-UNIFORM_BITS)
