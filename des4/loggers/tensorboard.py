"""TensorBoard: event files in the run folder's `tensorboard/`. Of its library only the writer of files is used."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from des4.loggers.logger import FirstStep


class TensorBoard:
    """Adds an event file for each process that trains the run; TensorBoard reads them as one."""

    forgets = True

    def open(self, run: Path, first: FirstStep, known: dict[str, Any]) -> dict[str, Any]:
        """Begin an event file; of earlier ones TensorBoard hides what lies beyond the step the run goes on from."""
        folder = run / "tensorboard"
        self._writer = EventFileWriter(str(folder))
        if first.step or known:
            start = SessionLog(status=SessionLog.START)
            self._add(first.step + 1, Event(session_log=start))
        text = "\n".join(f"    {line}" for line in yaml.safe_dump(dict(first.config), sort_keys=False).splitlines())
        self._add(first.step, Event(summary=Summary(value=[_text("config", text)])))
        return {"at": str(folder)}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers by tag."""
        numbers = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step, Event(summary=Summary(value=numbers)))

    def picture(self, step: int, png: bytes) -> None:
        """Log a picture under `samples`."""
        width, height = struct.unpack(">II", png[16:24])  # of a PNG's header
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._add(step, Event(summary=Summary(value=[Summary.Value(tag="samples", image=image)])))

    def close(self, status: str) -> None:
        """Close the file."""
        self._writer.close()

    def _add(self, step: int, event: Event) -> None:
        event.step, event.wall_time = step, time.time()
        self._writer.add_event(event)
        self._writer.flush()  # a kill loses no line that the run folder has


def _text(tag: str, markdown: str) -> Summary.Value:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
