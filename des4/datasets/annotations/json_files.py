"""Reading JSON that others wrote: limits, one-line errors, and large files without their weight.

A data set's annotations may be one file of a gigabyte, most of it coordinates. It is walked once; each element of its
large arrays is handed over with its place in the file, so that a reader keeps places instead of coordinates, and asks
for a part again when it needs it. The file is walked as Latin-1, where a character is a byte and a place can be sought;
what is not ASCII is decoded anew as UTF-8.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from des4.types import DataError

MAX_BYTES = 2 << 30
"""Larger files are refused."""

Span = tuple[int, int]
"""First byte of a JSON value in its file, and the byte after its last."""

_HEAD_BYTES = 1024
_UTF8_MARK = b"\xef\xbb\xbf".decode("latin-1")
_SPACE = re.compile(r"[ \t\r\n]*")


class JsonFile:
    """A JSON file whose parts are read when they are needed. Raises DataError where it is no JSON, or has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():  # a folder or a pipe is none either
            raise DataError(f"{path}: no such file; restore it or name another")
        self._state = _state(path.stat())
        if (size := self._state[0]) > MAX_BYTES:
            raise DataError(f"{path}: {size} bytes exceed the limit of {MAX_BYTES}; split the file")

    def elements(self, spread: Collection[str] = ()) -> Iterator[tuple[str, Any, Span]]:
        """Yield what the top level holds: key, value and place of an object's members; of an array, with the key ''.

        spread: keys whose value, if it is an array, is yielded element by element.
        """
        walk = _Walk(self.path, _text(self.path))
        if walk.at("["):
            yield from walk.array("")
        elif walk.at("{"):
            yield from walk.object(spread)
        else:
            walk.fail("it begins with neither { nor [")
        walk.finish()

    def parts(self, spans: Iterable[Span]) -> list[Any]:
        """Read the values at some places once more."""
        try:
            with self.path.open("rb") as file:
                if _state(os.fstat(file.fileno())) != self._state:
                    raise DataError(f"{self.path}: has changed since it was opened; start again with the new file")
                raw = [(file.seek(start), file.read(end - start))[1] for start, end in spans]
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror}); restore the file") from error
        return [_Walk(self.path, text.decode("latin-1")).value()[0] for text in raw]


def read_json(path: Path) -> Any:
    """Read a whole file. Raises DataError."""
    JsonFile(path)  # is it there, and of a bearable size?
    walk = _Walk(path, _text(path))
    value, _ = walk.value()
    walk.finish()
    return value


def head(path: Path) -> str:
    """Return the first KiB of a file, by which a reader may recognise its own; '' where it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES).decode("latin-1").removeprefix(_UTF8_MARK)
    except OSError:
        return ""


def _state(stat: os.stat_result) -> tuple[int, int]:
    """What changes when a file does."""
    return stat.st_size, stat.st_mtime_ns


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                return ""
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
                return str(raw, "latin-1")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore the file or name another") from error


class _Walk:
    """Walks the text of a JSON file value by value. Raises DataError."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.place = len(_UTF8_MARK) if text.startswith(_UTF8_MARK) else 0
        self._decoder = json.JSONDecoder(parse_constant=self._refuse_constant)
        self._plain = text.isascii()
        self._skip_space()

    def at(self, character: str) -> bool:
        return self.text.startswith(character, self.place)

    def object(self, spread: Collection[str]) -> Iterator[tuple[str, Any, Span]]:
        """Yield the members of the object that begins here."""
        self._expect("{")
        while not self.at("}"):
            key, _ = self.value()
            if not isinstance(key, str):
                self.fail("a key is no text")
            self._expect(":")
            if key in spread and self.at("["):
                yield from self.array(key)
            else:
                yield key, *self.value()
            self._expect_comma_before("}")
        self._expect("}")

    def array(self, key: str) -> Iterator[tuple[str, Any, Span]]:
        """Yield the elements of the array that begins here, each under `key`."""
        self._expect("[")
        while not self.at("]"):
            yield key, *self.value()
            self._expect_comma_before("]")
        self._expect("]")

    def value(self) -> tuple[Any, Span]:
        """Take the value that begins here."""
        start = self.place
        try:
            value, self.place = self._decoder.raw_decode(self.text, start)
            if not self._plain and not (raw := self.text[start : self.place]).isascii():
                value = self._decoder.decode(raw.encode("latin-1").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: is not in UTF-8; save the JSON in UTF-8") from error
        except json.JSONDecodeError as error:
            self.fail(error.msg, error.pos)
        except RecursionError:
            self.fail("it is nested too deeply")
        except ValueError as error:  # a number of more than 4300 digits, NaN
            self.fail(str(error).split(";")[0])
        span = start, self.place
        self._skip_space()
        return value, span

    def finish(self) -> None:
        """Make sure that nothing follows."""
        if self.place < len(self.text):
            self.fail("something follows its end")

    def fail(self, reason: str, place: int | None = None) -> NoReturn:
        line = self.text.count("\n", 0, self.place if place is None else place) + 1
        raise DataError(f"{self.path}: is no JSON ({reason}, line {line}); export the file anew")

    def _expect(self, character: str) -> None:
        if not self.at(character):
            self.fail(f"'{character}' is missing")
        self.place += 1
        self._skip_space()

    def _expect_comma_before(self, end: str) -> None:
        if not self.at(end):
            self._expect(",")
            if self.at(end):
                self.fail("a comma too many")

    def _skip_space(self) -> None:
        space = _SPACE.match(self.text, self.place)
        assert space is not None  # noqa: S101  # it matches nothing at all, too
        self.place = space.end()

    @staticmethod
    def _refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")
