"""The verb `des4 serve`. torch is imported inside it, so that --help is quick."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from des4.cli.arguments import RunArgument
from des4.cli.printing import show_notes, show_warnings


def serve(
    run: RunArgument,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings such as eval.mirror=true.")
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where it listens; 0.0.0.0: on every network of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0: any that is free.")] = 8000,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, or cuda:1, the second GPU.")] = "auto",
    tile: Annotated[
        int | None, typer.Option(metavar="PIXELS", min=65, help="Side of the tiles of large images; default: 1024.")
    ] = None,
    max_megabytes: Annotated[float, typer.Option(metavar="MB", min=0.001, help="Of an image file.")] = 32,
    max_megapixels: Annotated[float, typer.Option(metavar="N", min=0.001, help="Of an image.")] = 100,
    max_requests: Annotated[int, typer.Option(metavar="N", min=1, help="That wait; more are refused.")] = 16,
) -> None:
    """Answer HTTP: POST /predict takes an image and gives class indices as PNG; GET / is a page to drop images on.

    Whoever reaches the address may use it: there are no passwords and no encryption.
    """
    from des4 import hub
    from des4.engine.process import prepare_process
    from des4.predict import Predictor
    from des4.types import ConfigError, RunError

    try:
        import uvicorn

        from des4.serve import Limits, make_app
    except ImportError as error:
        raise ConfigError(f'serve: needs {error.name}; pip install "des4[serve]"') from None
    import socket

    console = show_warnings()
    prepare_process()
    predictor = Predictor(run, device)
    predictor.configure(settings or [])
    show_notes(console, filter(None, [predictor.note_on_resize()]), ())
    predictor.tile = tile or predictor.tile
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python adds the address, which is said
        raise RunError(f"{host}:{port}: cannot be listened on ({reason}); "
                       "give another with --port or --host") from None  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    source = hub.address_of(run) if hub.is_address(run) else run
    print(f"serving {source} at http://{shown}:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
    app = make_app(predictor, Limits(max_megabytes, max_megapixels, max_requests))
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=30)
    with listening, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
