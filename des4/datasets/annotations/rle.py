"""Run-length codes of masks: COCO's counts in text, and the bit stream in which Label Studio keeps a brush mask.

COCO text (https://github.com/cocodataset/cocoapi): a count is written in groups of 5 bits, the lowest first, as the
characters from '0' (48) on. The bit worth 32 says that another group follows; in the last group the bit worth 16 is the
sign. From the fourth count on, what is written is the difference to the count two before.

Label Studio's stream is that of @thi.ng/rle-pack (https://github.com/thi-ng/umbrella, Apache-2.0), highest bit first:
32 bits number of words, 5 bits word size − 1, four times 4 bits length size − 1. Then come chunks: 1 bit kind, 2 bits
which of the four length sizes, the length − 1 in so many bits, and a word to repeat (kind 1) or as many words (kind 0).
The words of a mask are its RGBA bytes, row by row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from des4.datasets.annotations.regions import Integers, RegionError

_LENGTH_SIZES = (3, 4, 8, 16)
"""Bits of the lengths that a stream of ours has."""
_LONGEST_COUNT = 12
"""Groups of 5 bits that an int64 holds."""


def counts_of_text(text: str) -> Integers:
    """Read COCO's compressed counts. Raises RegionError."""
    try:
        groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as error:
        raise RegionError("the counts hold a character that COCO does not use") from error
    if not groups.size:
        return np.empty(0, np.int64)
    if groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise RegionError("the counts hold a character that COCO does not use, or end in the middle of a number")
    ends = np.flatnonzero(groups & 32 == 0)
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_COUNT:
        raise RegionError("the counts hold a number beyond 64 bits")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    written = np.add.reduceat((groups & 31) << (5 * place), starts)
    written -= (groups[ends] & 16) << (5 * lengths - 4)  # the sign bit counts negative: −16 instead of 16
    counts = written
    counts[1::2] = np.cumsum(written[1::2])
    counts[2::2] = np.cumsum(written[2::2])
    return counts


def unpacked_words(packed: NDArray[np.uint8], num_words: int) -> NDArray[np.uint8]:
    """Read a stream of `num_words` 8-bit words. Raises RegionError if it holds another number, or breaks off."""
    stream = _Bits(packed)
    declared, word_size = stream.take(32), stream.take(5) + 1
    if declared != num_words or word_size != 8:
        raise RegionError(f"the brush mask holds {declared} words of {word_size} bits, not {num_words} of 8")
    length_sizes = [stream.take(4) + 1 for _ in range(4)]
    words = np.empty(num_words, np.uint8)
    done = 0
    while done < num_words:
        repeated = stream.take(1)
        length = 1 + stream.take(length_sizes[stream.take(2)])
        if done + length > num_words:
            raise RegionError("the brush mask runs beyond its own size")
        words[done : done + length] = stream.take(8) if repeated else stream.take_bytes(length)
        done += length
    return words


def packed_words(words: NDArray[np.uint8]) -> list[int]:
    """Write 8-bit words as such a stream, of runs alone: its bytes, as Label Studio's JSON lists them."""
    starts = np.flatnonzero(np.diff(words, prepend=np.int16(-1)))
    lengths = np.diff(starts, append=len(words))
    bits = [f"{len(words):032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _LENGTH_SIZES)]
    for word, length in zip(words[starts].tolist(), lengths.tolist(), strict=True):
        left = length
        while left:
            kind = next((n for n, size in enumerate(_LENGTH_SIZES) if left <= 1 << size), len(_LENGTH_SIZES) - 1)
            taken = min(left, 1 << _LENGTH_SIZES[kind])
            bits.append(f"1{kind:02b}{taken - 1:0{_LENGTH_SIZES[kind]}b}{word:08b}")
            left -= taken
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8))


class _Bits:
    """Reads a bit stream from its highest bit on. Raises RegionError at its end."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data, self.raw, self.place = data, data.tobytes(), 0

    def take(self, count: int) -> int:
        """Take a number of `count` bits."""
        start, self.place = self.place, self._advance(count)
        covering = self.raw[start // 8 : (self.place + 7) // 8]
        return int.from_bytes(covering) >> (-self.place % 8) & ((1 << count) - 1)

    def take_bytes(self, count: int) -> NDArray[np.uint8]:
        """Take `count` numbers of 8 bits."""
        start, self.place = self.place, self._advance(8 * count)
        first, shift = divmod(start, 8)
        if not shift:
            return self.data[first : first + count]
        covering = self.data[first : first + count + 1]
        return covering[:-1] << np.uint8(shift) | covering[1:] >> np.uint8(8 - shift)

    def _advance(self, count: int) -> int:
        if self.place + count > 8 * len(self.raw):
            raise RegionError("the brush mask breaks off")
        return self.place + count
