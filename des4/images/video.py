"""The frames of a video, one after the other, through FFmpeg's libraries (PyAV, the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from des4.types import DataError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm"})


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_frames(path: Path) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """Yield (number from 0, number of all frames or 0 where the file does not say, (H, W, 3) RGB), upright.

    Raises DataError where the extra is missing, or the file is broken; the frames before that are good.
    """
    av = _library(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video; take it off the list")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                turns = round(getattr(frame, "rotation", 0) / 90)  # as a phone that was held upright asks
                yield number, stream.frames, np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be read as a video ({reason}); replace the file") from None


def _library(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise DataError(f'{path}: reading a video needs PyAV; pip install "des4[video]"') from None
    return av
