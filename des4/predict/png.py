"""PNG files written from top to bottom, so that a large one never is in memory (PNG specification, W3C, 2003)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_GREY, _PALETTE = 0, 3
_CHUNK = 2**20
"""Bytes of compressed pixels in a chunk, about."""


class PngWriter:
    """Writes one channel of 8 or 16 bits. Call `write` with rows, top first, then `close`.

    size: (height, width). palette: RGB by value, for 8 bits; None = grey.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], bits: int = 8, palette: Sequence[tuple[int, int, int]] | None = None
    ) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._bits, self._compressor, self._pending = bits, zlib.compressobj(4), b""
        self._file.write(b"\x89PNG\r\n\x1a\n")
        kind = _GREY if palette is None else _PALETTE
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], bits, kind, 0, 0, 0))
        if palette is not None:
            self._chunk(b"PLTE", bytes(value for colour in palette for value in colour))

    def write(self, rows: NDArray[Any]) -> None:
        """Add rows, (any, W) unsigned integers of so many bits."""
        pixels = np.ascontiguousarray(rows, f">u{self._bits // 8}").view(np.uint8).reshape(len(rows), -1)
        lines = np.zeros((len(rows), pixels.shape[1] + 1), np.uint8)  # each begins with the number of its filter: none
        lines[:, 1:] = pixels
        self._pending += self._compressor.compress(lines.tobytes())
        if len(self._pending) >= _CHUNK:
            self._chunk(b"IDAT", self._pending)
            self._pending = b""

    def close(self) -> None:
        """End the file."""
        self._chunk(b"IDAT", self._pending + self._compressor.flush())
        self._chunk(b"IEND", b"")
        self._file.close()

    def discard(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _chunk(self, name: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
