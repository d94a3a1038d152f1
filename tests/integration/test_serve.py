"""`des4 serve`: what it answers, what it refuses, and that one request waits for the other."""

from __future__ import annotations

import base64
import io
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import des4
from des4 import cli
from des4.predict import Outputs, Predictor, predict_files

pytest.importorskip("uvicorn")
testclient = pytest.importorskip("starlette.testclient")
serve = pytest.importorskip("des4.serve")

JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return des4.load(trained, "cpu")


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[Any]:
    limits = serve.Limits(megabytes=0.1, megapixels=0.02)
    with testclient.TestClient(serve.make_app(predictor, limits), raise_server_exceptions=False) as client:
        yield client


def photo(size: tuple[int, int] = (33, 47), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def test_one_post_gives_what_predict_writes(client: Any, predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo())
    predict_files(predictor, [tmp_path / "a.png"], tmp_path / "out", outputs=Outputs(entropy=True))
    for path in ("/predict", "/"):
        answer = client.post(path, content=photo())
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content == (tmp_path / "out" / "masks" / "a.png").read_bytes()
    for asked, file, kind in (("overlay", "overlays/a.jpg", "jpeg"), ("entropy", "entropy/a.png", "png")):
        answer = client.post(f"/predict?output={asked}", content=photo())
        assert answer.headers["content-type"] == f"image/{kind}"
        assert answer.content == (tmp_path / "out" / file).read_bytes()


def test_json_has_the_figures_and_the_picture_that_was_asked_for(client: Any, predictor: Predictor) -> None:
    found = predictor.segment(np.asarray(Image.open(io.BytesIO(photo(kind="BMP")))))
    told = client.post("/predict", content=photo(kind="BMP"), headers=JSON).json()
    assert set(told) == {"height", "width", "confidence", "entropy", "shares", "resize", "notes"}
    assert (told["height"], told["width"]) == (33, 47)
    assert told["shares"] == pytest.approx(found.shares, abs=1e-5)
    told = client.post("/predict?output=labels", content=photo(), headers=JSON).json()
    with Image.open(io.BytesIO(base64.b64decode(told["labels"]))) as mask:
        assert (np.array(mask) == found.labels).all()
    told = client.post("/predict?output=entropy", content=photo(), headers=JSON).json()
    assert told["entropy"] == pytest.approx(found.mean_entropy, abs=1e-4)
    assert base64.b64decode(told["entropy_picture"]) == client.post("/predict?output=entropy", content=photo()).content


def test_an_image_of_another_resolution_is_told_of(client: Any) -> None:
    plain = client.post("/predict", content=photo(), headers=JSON)
    assert (plain.json()["resize"], plain.json()["notes"], plain.headers["DES4-Resize"]) == (1, [], "1")
    small = photo((24, 12))  # the training's images have 48×48 pixels
    assert client.post("/predict", content=small).headers["DES4-Resize"] == "2"
    told = client.post("/predict", content=small, headers=JSON).json()
    assert (told["height"], told["width"], told["resize"]) == (24, 12, 2)
    (note,) = told["notes"]
    assert note.startswith("the image: 12×24 pixels, and the network was trained on images of about 48×48: so it sees")
    assert "at 24×48" in note and note.endswith("eval.resize=1 turns this off")


def test_a_large_image_is_cut(client: Any, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "tile", 70)
    expected = predictor.predict(np.asarray(Image.open(io.BytesIO(photo((110, 100))))))
    with Image.open(io.BytesIO(client.post("/predict", content=photo((110, 100))).content)) as mask:
        assert (np.array(mask) == expected).all()


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "said"),
    [
        ("/predict", b"", {}, 400, "the body is empty"),
        ("/predict", b"no image", {}, 422, "the image: cannot be read as an image (cannot identify image file)"),
        ("/predict", photo()[:900], {}, 422, "the image: cannot be read as an image"),
        ("/predict", photo((300, 200), "BMP"), {}, 413, "the body is larger than 0.1 MB"),
        ("/predict", photo((200, 150), "JPEG"), {}, 413, "150×200 pixels, and this server takes 0.02 megapixels"),
        ("/predict?output=masks", photo(), {}, 400, "output=masks: there are labels, overlay, entropy"),
        ("/predict?overlay=1", photo(), {}, 400, "overlay: is no parameter; there is output=labels|overlay|entropy"),
        ("/predict", photo(), {"Content-Type": "multipart/form-data; boundary=x"}, 415, "send the image itself"),
        ("/pred", photo(), {}, 404, "POST /pred: there are POST /predict, GET /health and GET /"),
    ],
)
def test_what_is_wrong_is_one_line(
    client: Any, path: str, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == status
    assert said in answer.text and answer.text.count("\n") == 1 and gettempdir() not in answer.text
    told = client.post(path, content=body, headers={**headers, **JSON})
    assert told.status_code == status and said in told.json()["error"]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_too_large_an_image_is_refused_before_it_is_decoded(
    client: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("des4.serve.app.open_windows", lambda *_: pytest.fail("it is opened"))
    file = io.BytesIO()
    Image.new("RGB", (200, 150)).save(file, kind, **({"compression": "tiff_deflate"} if kind == "TIFF" else {}))
    answer = client.post("/predict", content=file.getvalue())
    assert (answer.status_code, answer.text[:30]) == (413, "the image has 200×150 pixels, ")


def test_a_body_of_unknown_length_is_limited_too(client: Any) -> None:
    answer = client.post("/predict", content=(b"x" * 50_000 for _ in range(5)))
    assert answer.status_code == 413


def test_other_methods_the_page_and_health(client: Any, predictor: Predictor) -> None:
    assert client.get("/predict").status_code == 405
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["requests"] == 0 and health["classes"] == list(predictor.classes)
    page = client.get("/")
    assert "Drop an image" in page.text
    assert not re.findall(r"(?:src|href)=|https?:|//(?!.*`)", page.text), "the page needs nothing from elsewhere"


def test_a_fault_of_the_server_shows_no_traceback(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("des4.serve.app.write_image", lambda *_: 1 / 0)
    answer = client.post("/predict", content=photo())
    assert (answer.status_code, answer.text) == (500, "the server failed on this request; its log says why\n")


def test_images_wait_for_each_other_and_too_many_are_refused(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, go_on, at_once, most = threading.Event(), threading.Event(), [0], [0]
    pieces = predictor.pieces

    def slow(*arguments: Any) -> Any:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        busy.set()
        assert go_on.wait(20)
        at_once[0] -= 1
        return pieces(*arguments)

    monkeypatch.setattr(predictor, "pieces", slow)
    with testclient.TestClient(serve.make_app(predictor, serve.Limits(requests=2))) as client:
        codes: list[int] = []
        threads = [
            threading.Thread(target=lambda: codes.append(client.post("/predict", content=photo()).status_code))
            for _ in range(2)
        ]
        threads[0].start()
        assert busy.wait(20)
        threads[1].start()
        while client.get("/health").json()["requests"] < 2:
            pass
        refused = client.post("/predict", content=photo())
        assert refused.status_code == 503 and refused.headers["retry-after"] == "2"
        go_on.set()
        for thread in threads:
            thread.join()
        assert codes == [200, 200] and most == [1]
        assert client.post("/predict", content=photo()).status_code == 200


def test_the_command_says_what_is_wrong(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(cli.app, ["serve", str(trained), "--port", port])
    assert done.exit_code == 2
    assert "Address already in use); give another with --port" in " ".join(done.stderr.split())
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    done = CliRunner().invoke(cli.app, ["serve", str(trained)])
    assert 'pip install "des4[serve]"' in done.stderr


def test_the_command_serves(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: served.append(sockets[0].getsockname()))
    done = CliRunner().invoke(cli.app, ["serve", str(trained), "eval.mirror=true", "--port", "0"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"serving {trained} at http://127.0.0.1:{served[0][1]} (Ctrl-C ends it)\n"
