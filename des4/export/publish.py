"""A network on its way to the hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from des4 import hub
from des4.export.folder import SAMPLES, write_folder
from des4.hub import Address
from des4.weights import load_weights, weights_file


def publish(
    run: str | Path,
    target: str | Path,
    *,
    public: bool = False,
    licence: str | None = None,
    samples: bool = False,
    overwrite: bool = False,
) -> tuple[Address, bool, list[str]]:
    """Push a network to a repository: weights, settings, class names and a card, as `write_folder` makes them.

    run: where `weights_file` finds weights. public: of a repository that is not there yet. Returns its address, whether
    it is private, and the names of the files. Raises as `write_folder` and `hub.push`, and WeightsError.
    """
    address, weights = hub.address_of(target), weights_file(run)
    segmenter, info = load_weights(weights)
    with TemporaryDirectory(prefix="des4-") as name:
        folder = Path(name)
        write_folder(folder, weights, segmenter, info, address=str(address), licence=licence, samples=samples)
        files = sorted(file.name for file in folder.iterdir())
        message = f"{info.method} on {info.model.encoder}, {len(info.classes)} classes"
        # a picture of an earlier push shows another network's predictions
        address, private = hub.push(folder, target, message, private=not public, overwrite=overwrite, stale=[SAMPLES])
    return address, private, files
