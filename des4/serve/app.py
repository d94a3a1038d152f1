"""The HTTP interface of a trained network: `POST /predict` with an image as the body, `GET /health`, `GET /`.

Memory is bounded: bodies are written to files as they come in, up to a limit; one image is segmented at a time, in
tiles if it is large, as `des4 predict` does it; the others wait, up to a number.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import des4
from des4.images.pictures import read_header
from des4.images.windows import open_windows
from des4.predict import Outputs, Predictor
from des4.predict.files import figures_of_row
from des4.predict.sources import Job
from des4.predict.writing import COLUMNS, write_image
from des4.types import DataError, UserError

PAGE = Path(__file__).with_name("page.html")
RESIZED = "DES4-Resize"
"""Header of an answer: the factor by which the image was resized before the network saw it."""
MEDIA = {"labels": ("masks", "png"), "overlay": ("overlays", "jpeg"), "entropy": ("entropy", "png")}
"""What may be asked for → the folder that `write_image` puts it in, and the kind of picture."""
NAMES = {"labels": "labels", "overlay": "overlay", "entropy": "entropy_picture"}
"""What may be asked for → what the picture is called in JSON, where `entropy` is the mean."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask of the server. megabytes: of a body, in 10⁶. megapixels: of an image, in 10⁶.

    requests: that are being received, wait, or are segmented. seconds: in which a body has to come in.
    """

    megabytes: float = 32
    megapixels: float = 100
    requests: int = 16
    seconds: float = 60


def make_app(predictor: Predictor, limits: Limits | None = None) -> Starlette:
    """Return the application that serves a network, for uvicorn or any other ASGI server."""
    service = _Service(predictor, limits or Limits())
    routes = [
        Route("/", service.page, methods=["GET"]),
        Route("/", service.predict, methods=["POST"]),
        Route("/health", service.health, methods=["GET"]),
        Route("/predict", service.predict, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refusal, Exception: _failure})


class _Service:
    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits
        self._inside = 0
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "segment", torch.set_flush_denormal, (True,))  # as a process is prepared
        self._page = PAGE.read_text(encoding="utf-8")

    async def page(self, request: Request) -> Response:
        """A page where an image can be dropped."""
        return HTMLResponse(self._page)

    async def health(self, request: Request) -> Response:
        """Whether the server answers, how much it has to do, and what it serves."""
        model = self._predictor
        return JSONResponse({
            "status": "ok",
            "requests": self._inside,
            "des4": des4.__version__,
            "method": model.info.method,
            "encoder": model.info.model.encoder,
            "device": str(model.device),
            "classes": list(model.classes),
            "palette": [list(colour) for colour in model.palette],
        })  # fmt: skip

    async def predict(self, request: Request) -> Response:
        """Segment the image that the body is."""
        asked = self._asked(request)
        async with self._admitted():
            with TemporaryDirectory(prefix="des4-") as name:
                folder = Path(name)
                await self._receive(request, folder / "image")
                async with self._turn:
                    if await request.is_disconnected():
                        return Response(status_code=499)  # nobody sees it
                    loop = asyncio.get_running_loop()
                    figures = await loop.run_in_executor(self._thread, self._segment, folder, asked)
                headers = {RESIZED: f"{figures['resize']:g}"}
                if _wants_json(request):
                    picture = {NAMES[asked]: base64.b64encode(_picture(folder, asked)).decode()} if asked else {}
                    return JSONResponse({**figures, **picture}, headers=headers)
                asked = asked or "labels"
                return Response(_picture(folder, asked), headers=headers, media_type=f"image/{MEDIA[asked][1]}")

    def _asked(self, request: Request) -> str | None:
        """Return which picture is asked for. Raises HTTPException."""
        if unknown := [key for key in request.query_params if key != "output"]:
            raise HTTPException(400, f"{unknown[0]}: is no parameter; there is output={'|'.join(MEDIA)}")
        asked: str | None = request.query_params.get("output")
        if asked is not None and asked not in MEDIA:
            raise HTTPException(400, f"output={asked}: there are {', '.join(MEDIA)}")
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise HTTPException(
                415, "send the image itself as the body, as curl --data-binary @photo.jpg does; no form"
            )
        return asked

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        if self._inside >= self._limits.requests:
            raise HTTPException(503, f"{self._inside} requests wait already; try again later", {"Retry-After": "2"})
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    async def _receive(self, request: Request, path: Path) -> None:
        """Write the body to a file. Raises HTTPException if it is empty, too large, or too slow."""
        limit = int(self._limits.megabytes * 10**6)
        promised = request.headers.get("content-length", "")
        size = int(promised) if promised.isdecimal() else 0
        try:
            with path.open("wb") as file:
                async with asyncio.timeout(self._limits.seconds):
                    if size <= limit:
                        size = 0
                        async for part in request.stream():
                            if (size := size + len(part)) > limit:
                                break
                            file.write(part)
        except TimeoutError:
            raise HTTPException(408, f"the body has not come in within {self._limits.seconds:g} seconds") from None
        except ClientDisconnect:
            raise HTTPException(499, "the client has gone") from None
        if size > limit:
            raise HTTPException(413, f"the body is larger than {self._limits.megabytes:g} MB", {"Connection": "close"})
        if not size:
            raise HTTPException(400, "the body is empty: send an image as the body of the request")

    def _segment(self, folder: Path, asked: str | None) -> dict[str, Any]:
        """Segment `image` in a folder into files beside it, and return the figures. Raises HTTPException.

        Among them `resize`, by which factor the network saw the image, and `notes`, what `des4 predict` would tell.
        """
        source = folder / "image"
        try:
            with suppress(DataError):  # opening it says what is wrong, and gets along with more than a header may say
                self._refuse_large(read_header(source).upright)  # before its pixels are decoded
            image = open_windows(source, self._predictor.info.bands)
            self._refuse_large(image.size)
            ((_, pieces),) = self._predictor.pieces([image])
            outputs = Outputs(overlays=asked == "overlay", entropy=asked == "entropy")
            told = [self._predictor.note_on_resize(), *self._predictor.notes_on(image).values()]
            seen = {
                "resize": self._predictor.factor_of(image),
                "notes": [note.replace(str(source), "the image") for note in told if note is not None],
            }
            row = write_image(self._predictor, Job(source, Path("image")), image, pieces, folder, outputs)
        except DataError as error:
            reason = str(error).replace(str(source), "the image")  # the remedy is for whoever has the file at hand
            raise HTTPException(422, reason.rpartition("; ")[0] or reason) from None
        except UserError as error:
            raise HTTPException(503, str(error)) from None
        names = [*COLUMNS, *(f"share/{name}" for name in self._predictor.classes)]
        return {**figures_of_row(dict(zip(names, row, strict=True))), **seen}

    def _refuse_large(self, size: tuple[int, int]) -> None:
        height, width = size
        if height * width > self._limits.megapixels * 10**6:
            most = f"this server takes {self._limits.megapixels:g} megapixels"
            raise HTTPException(413, f"the image has {width}×{height} pixels, and {most}")


def _picture(folder: Path, asked: str) -> bytes:
    (path,) = (folder / MEDIA[asked][0]).glob("image.[jp][pn]g")
    return path.read_bytes()


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # as it is registered for them
    reason = error.detail
    if error.status_code in (404, 405):
        reason = f"{request.method} {request.url.path}: there are POST /predict, GET /health and GET /"
    return _one_line(request, reason, error.status_code, error.headers)


async def _failure(request: Request, error: Exception) -> Response:
    return _one_line(request, "the server failed on this request; its log says why", 500, None)


def _one_line(request: Request, text: str, status: int, headers: Any) -> Response:
    if _wants_json(request):
        return JSONResponse({"error": text}, status, headers)
    return PlainTextResponse(f"{text}\n", status, headers)
