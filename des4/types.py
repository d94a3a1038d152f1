"""Types that the packages share: configs, batches, views, and the errors a user sees.

Shape legend, used in every docstring of the project:
B images, C classes, D embedding size, H×W the crop, h×w the feature grid (stride 4, or near it), N pixels.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

IGNORE = 255
"""The label of pixels that nobody scores: unlabeled regions of a mask, and padding."""

STOP_SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if (number := getattr(signal, name, None)) is not None
)
"""What asks a training to save and stop: Ctrl-C, a scheduler's end, a closed terminal, and a scheduler's warning.

Windows lacks the last two.
"""

CutMixPreset = Literal["none", "french", "cps", "reco", "unimatch", "augseg"]
StrongPreset = Literal["none", "french", "unimatch", "augseg", "pseudoseg", "cmb"]


Factor = Annotated[float, Field(gt=0, le=4)]
"""What an image is resized by."""


class Config(BaseModel):
    """Base of every component's settings: immutable, typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and what to do."""


class ConfigError(UserError):
    """A setting is unknown, ill-typed or out of range."""


class DataError(UserError):
    """An image, a mask or a list cannot be used as it is."""


class WeightsError(UserError):
    """A weights file is missing, damaged or does not fit the network."""


class RunError(UserError):
    """A run folder cannot be created, continued or read."""


class CallbackError(UserError):
    """A callback that a training was given has raised an error, which is the cause of this one."""


@dataclass(frozen=True)
class ViewSpec:
    """The views a method asks of the loader, and the presets of the protocol it was published with.

    strong: how many strong views of each unlabeled image the method needs; 0 = it reads no unlabeled image.
    cutmix, photometric: used where the user's config says `auto`.
    neighbours: whether the method itself takes something of the images that are mixed with one, also without boxes.
    recoloured: one preset for each further view of the labeled images, which shows the same crop in other colours.
    donor_scale: what the lowest and the highest scale of the user's crops are multiplied by for the donors of labeled
    images; None = they have none.
    """

    strong: int = 0
    recoloured: tuple[StrongPreset, ...] = ()
    donor_scale: tuple[float, float] | None = None
    cutmix: CutMixPreset = "none"
    photometric: StrongPreset = "none"
    neighbours: bool = False

    @property
    def reads_unlabeled(self) -> bool:
        """Whether the method reads unlabeled images."""
        return self.strong > 0


class Bands(Config):
    """How the values of image files that are no 8-bit pictures become an image: numbers in [0, 1].

    numbers: of the bands in the file, from 1, in the order in which the network sees them. type: of the stored values,
    as numpy names integers, or `float`. ranges: (low, high) a band; low becomes 0, high 1, and what lies outside is
    clipped. mean, std: a band, of an image's numbers in [0, 1], which the network normalises with.
    """

    numbers: tuple[int, ...]
    type: str
    ranges: tuple[tuple[float, float], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def are_bytes(self) -> bool:
        """Whether stored values are an image as they are: bytes, of which 255 stands for 1."""
        return self.type == "uint8" and set(self.ranges) == {(0.0, 255.0)}


class Dataset(Protocol):
    """A source of images and masks, whatever their format. It owns the class names, and knows no method.

    An image is bytes, of which v stands for v / 255, or float32 in [0, 1]: see `ops/pixels.py`.

    Ids are strings, unique in the data set; they name a sample in messages, lists and predictions.
    skip_broken: whether a labeled sample that cannot be read is skipped in training, or stops it. One that is
    unlabeled is always skipped.
    held_out: labeled samples that are in no list of training, since nothing is to be learnt from them.
    notes: what the data set decided beyond what its files say, one sentence each.
    bands: None where images are 8-bit pictures, read as RGB.
    """

    notes: tuple[str, ...]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    labeled: Sequence[str]
    unlabeled: Sequence[str]
    val: Sequence[str]
    held_out: Sequence[str]
    skip_broken: bool

    @property
    def bands(self) -> Bands | None:
        """What the images are made of. Raises DataError where that is to be measured and no image can be read."""

    def image(self, sample_id: str) -> Tensor:
        """Read an image: (3, H, W) uint8 RGB, or (bands, H, W) uint8 or float32 in [0, 1]. Raises DataError."""

    def stored_image(self, sample_id: str) -> Tensor:
        """Read an image as its file holds it: as `image`, before values of bands are scaled. Raises DataError."""

    def label(self, sample_id: str) -> Tensor:
        """Read a mask of the same size, (H, W) uint8 with classes 0..C-1 and IGNORE. Raises DataError."""

    def reveal(self) -> Sequence[str]:
        """From now on let `label` read the masks of unlabeled images too, and return the ids of those that have one.

        For measurements and for an oracle, when the user asks for it; otherwise nobody opens these masks.
        """

    def hold_out(self, ids: Iterable[str]) -> None:
        """Take labeled samples off both lists that a method learns from, and call them `held_out`."""

    def check_labeled(self) -> None:
        """Look at every labeled and val sample without decoding it. Raises DataError before training would."""


@dataclass(frozen=True)
class Mix:
    """Where a mixed image takes its pixels from.

    partner: (B,) int64, the sample that fills the box. box: (B, H, W) bool, True where the partner's pixel is taken.
    group: partners are found within groups of so many neighbours, so a batch can be split between groups; samples
        behind the first B may be partners too, and are not mixed themselves.
    """

    partner: Tensor
    box: Tensor
    group: int

    def __call__(self, tensor: Tensor, filling: Tensor | None = None) -> Tensor:
        """Fill each sample's box with its partner's pixels. tensor: (B, H, W) or (B, channels, H, W), any type, or of
        more samples than B. filling: as `tensor`, of which the partners' pixels are taken; None: of `tensor`.
        """
        box = self.box if tensor.ndim == 3 else self.box[:, None]
        return torch.where(box, (tensor if filling is None else filling)[self.partner], tensor[: len(box)])


@dataclass(frozen=True)
class Labeled:
    """Labeled samples. image: (B, bands, H, W) float32 in [0, 1]. label: (B, H, W) int64, IGNORE on padding too.

    pixels: scalar that losses divide their sums by. Of a part of a step it is the mean number of valid pixels over all
    parts and processes, so that the mean of their losses is the loss of the whole; None = of this batch alone.
    keys: (B,) int64, a hash of (seed, epoch, id): what is drawn for a sample follows from it, see `ops/noise.py`.
    recoloured: further views as the method's `VIEWS` asks for, each as `image`.
    donor: another labeled sample for each of these, drawn from its (seed, epoch, id), of which it may be given pixels;
        its keys are theirs. None, unless the method's `VIEWS` asks for it.
    """

    image: Tensor
    label: Tensor
    keys: Tensor
    ids: tuple[str, ...] = ()
    pixels: Tensor | None = None
    recoloured: tuple[Tensor, ...] = ()
    donor: Labeled | None = None

    @property
    def valid(self) -> Tensor:
        """Where there is a label, (B, H, W) bool."""
        return self.label != IGNORE


@dataclass(frozen=True)
class StrongView:
    """One strong view of unlabeled samples. image: (B, bands, H, W), as `Unlabeled.weak`, not yet mixed.

    mix: mixes it, and alike whatever belongs to its pixels: pseudo-labels, confidence, `Unlabeled.valid`.
    pixels: as of `Labeled`, of the valid pixels once they are mixed.
    """

    image: Tensor
    mix: Mix
    pixels: Tensor | None = None

    @property
    def mixed(self) -> Tensor:
        """The mixed image."""
        return self.mix(self.image)


class TargetWatch(Protocol):
    """Is shown the targets of unlabeled images, each with the logits that a loss holds against it."""

    def collect(self, logits: Tensor, label: Tensor, confidence: Tensor, keep: Tensor, valid: Tensor) -> None:
        """See a target on the grid of the logits, mixed as the view is.

        logits: (B, C, h, w), of whom is taught. label: (B, h, w) int64, the target's most probable class, of
        probability `confidence`. keep: (B, h, w) bool, where it counts. valid: (B, h, w) bool, False on padding.
        """


class TargetAlignment(Protocol):
    """Makes predictions on unlabeled images fit what is known of how frequent classes are, before targets are made."""

    def aligned(self, probs: Tensor, valid: Tensor) -> Tensor:
        """Return class distributions (B, C, h, w) aligned, of which those on `valid`, (B, h, w) bool, are predictions.

        Each call takes note of them.
        """


@dataclass(frozen=True)
class Unlabeled:
    """Views of unlabeled samples; all of one sample show the same crop, so their pixels correspond.

    weak: (B, bands, H, W) float32 in [0, 1]. strong: as many as the method's `VIEWS` asks for.
    valid: (B, H, W) bool, False on padding. Padding is no label value: an unlabeled image has none.
    keys: as of `Labeled`. pixels: as of `Labeled`, of `valid` as it is.
    truth: (B, H, W) int64 in [0, C), true labels that stand in for every target of these images, which then have none
        but valid pixels; any number where `valid` is False. None, but for an oracle.
    watch: is shown the targets that are made of these images, when a loss is taken of them.
    alignment: aligns the distributions that targets are made of; None, but for a user who asks for it.
    """

    weak: Tensor
    strong: tuple[StrongView, ...]
    valid: Tensor
    keys: Tensor
    ids: tuple[str, ...] = ()
    pixels: Tensor | None = None
    truth: Tensor | None = None
    watch: TargetWatch | None = None
    alignment: TargetAlignment | None = None


@dataclass(frozen=True)
class Batch:
    """What one training step reads, or a part of it.

    unlabeled: None for methods whose ViewSpec has no strong view.
    skipped: images that could not be read for it and gave their place to others, id → reason in one line.
    """

    labeled: Labeled
    unlabeled: Unlabeled | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def both(self) -> tuple[Labeled, Unlabeled]:
        """Labeled and unlabeled samples, for methods whose ViewSpec asks for strong views."""
        assert self.unlabeled is not None  # noqa: S101  # the loader follows the ViewSpec
        return self.labeled, self.unlabeled
