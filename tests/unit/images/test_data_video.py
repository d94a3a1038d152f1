from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from des4.images.video import is_video, read_frames
from des4.types import DataError


def make_video(path: Path, frames: int = 5, size: tuple[int, int] = (48, 64)) -> Path:
    """Frame n is grey, 40·n bright."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            pixels = np.full((*size, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_come_in_order(tmp_path: Path) -> None:
    frames = list(read_frames(make_video(tmp_path / "a.mp4")))
    assert [(number, total) for number, total, _ in frames] == [(number, 5) for number in range(5)]
    assert all(pixels.shape == (48, 64, 3) and pixels.dtype == np.uint8 for _, _, pixels in frames)
    assert [abs(float(pixels.mean()) - 40 * number) < 4 for number, _, pixels in frames] == [True] * 5


def test_a_frame_is_turned_as_the_file_asks(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[:, :32] = 200
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track: (x, y) is shown at (-y, x), a quarter turn clockwise
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    ((_, _, frame),) = read_frames(path)
    assert frame.shape == (64, 48, 3)
    assert frame[:28].mean() == pytest.approx(200, abs=6)
    assert frame[36:].mean() == pytest.approx(0, abs=6)


def test_what_is_no_video_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"a\.mp4: cannot be read as a video"):
        list(read_frames(tmp_path / "a.mp4"))
    with pytest.raises(DataError, match=r"b\.mp4: cannot be read as a video"):
        list(read_frames(tmp_path / "b.mp4"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r'needs PyAV; pip install "des4\[video\]"'):
        list(read_frames(tmp_path / "a.mp4"))


def test_videos_are_known_by_name() -> None:
    assert is_video(Path("a.MP4")) and not is_video(Path("a.jpg"))
