"""Vision transformers as encoders: ViT, DeiT, DINOv2, DINOv3, EVA and their kin (timm, Apache-2.0, as a library).

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; Oquab et al., "DINOv2", TMLR 2024; Siméoni et al.,
"DINOv3", 2025. The maps are the tokens behind four blocks, as DPT reads them (`dpt`), each put through the network's
final norm, where it has one, as DINOv2's own segmentation does. Class and register tokens are left out of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from timm.models import eva, is_model_in_modules, vision_transformer
from torch import Tensor, nn

from des4.models.encoders.encoder import Encoder, first_line
from des4.ops.resize import upsample
from des4.types import ConfigError, WeightsError

FAMILIES = ("vision_transformer", "deit", "eva", "beit")
"""timm's modules with plain transformers: one grid of tokens from the first block to the last."""

DEFAULT_STRIDE = 16
"""The output stride of pyramids that a config holds when nobody has chosen one."""

NUM_MAPS = 4
CHOSEN_BLOCKS = {24: (4, 11, 17, 23)}
"""Blocks that are read, by depth, where DINOv2 and UniMatch v2 differ from the rule of `blocks_to_read`."""


def is_transformer(name: str) -> bool:
    """Whether timm's network of this name is a plain vision transformer, which `TransformerEncoder` is for."""
    return bool(is_model_in_modules(name, FAMILIES))


def blocks_to_read(depth: int) -> tuple[int, ...]:
    """Return the last block of each quarter of `depth` blocks, counted from 0 and rounded up: 2, 5, 8, 11 of 12."""
    return CHOSEN_BLOCKS.get(depth) or tuple(-(-depth * quarter // NUM_MAPS) - 1 for quarter in range(1, NUM_MAPS + 1))


class TransformerEncoder(Encoder):
    """A vision transformer cut down to the four maps that DPT reads, all of the stride of its patches.

    name: of a timm model of `FAMILIES` that takes images of any size. output_stride: that of pyramids; a transformer
    has none to choose, so any but the default is refused. num_bands: of images. Raises ConfigError.
    """

    def __init__(self, name: str, output_stride: int = DEFAULT_STRIDE, num_bands: int = 3) -> None:
        network = _build(name, num_bands)
        patch = network.patch_embed.feat_ratio(as_scalar=False)
        if output_stride != DEFAULT_STRIDE:
            raise ConfigError(
                f"model.output_stride={output_stride} does not apply to `{name}`, a vision transformer whose stride is "
                f"that of its patches, {patch[0]}; leave it at {DEFAULT_STRIDE}, which has no effect there"
            )
        depth = len(network.blocks)
        if depth < NUM_MAPS:
            raise ConfigError(
                f"model.encoder: `{name}` has {depth} blocks, and four are read; choose a deeper transformer"
            )
        indices = blocks_to_read(depth)
        _cut(network, indices)
        super().__init__(name, network, (network.embed_dim,) * NUM_MAPS, network.embed_dim)
        self.indices, self.patch = indices, patch

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Encode a normalised image (B, bands, H, W) to four maps (B, D, h, w), shallow ones first.

        h·w patches come nearest to the image's size, at least one of them. The image is resized to theirs, corners
        aligned, so that they cover all of it and nothing else.
        """
        height, width = (nearest_count(side, patch) for side, patch in zip(image.shape[-2:], self.patch, strict=True))
        fitted = upsample(image, (height * self.patch[0], width * self.patch[1]))
        tokens = self.network.forward_intermediates(
            fitted, indices=self.indices, norm=True, output_fmt="NLC", intermediates_only=True
        )
        # (B, h·w, D) is a map with its channels last in memory already, which the decoder's convolutions want.
        maps = tuple(rows.unflatten(1, (height, width)).movedim(-1, 1) for rows in tokens)
        return (*maps, maps[-2]) if self.yields_side else maps

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Translate what timm knows how to: DINOv2's and DINOv3's own files among others, and other position grids.

        A position embedding of another number of patches is resampled.
        """
        named: dict[str, Tensor]
        try:
            if isinstance(self.network, eva.Eva):
                named = eva.checkpoint_filter_fn(dict(state), self.network)
            else:
                named = vision_transformer.checkpoint_filter_fn(dict(state), self.network, adapt_layer_scale=True)
        except Exception as error:  # whatever reshaping meets in tensors of another network
            raise WeightsError(
                f"model.weights: these are no weights of `{self.name}` ({first_line(error)}); "
                "use weights of this very encoder, or model.weights=none"
            ) from error
        # `_cut` has put the norm behind the pooling where the final norm is.
        return {key.replace("fc_norm.", "norm."): value for key, value in named.items()} | named


def nearest_count(side: int, patch: int) -> int:
    """How many patches come nearest to covering `side` pixels, at least one; a half is rounded up."""
    return max(1, (2 * side + patch) // (2 * patch))


def _build(name: str, num_bands: int) -> Any:
    try:
        network = timm.create_model(name, num_classes=0, dynamic_img_size=True, in_chans=num_bands)
    except Exception as error:
        raise ConfigError(
            f"model.encoder: timm cannot build `{name}` for images of any size ({first_line(error)}); choose another "
            "vision transformer, such as vit_small_patch14_dinov2"
        ) from error
    if not isinstance(network, vision_transformer.VisionTransformer | eva.Eva):
        raise ConfigError(
            f"model.encoder: timm builds `{name}` as a {type(network).__name__}, which is not known here; "
            "unset TIMM_USE_NAFLEX, or choose another encoder"
        )
    return network


def _cut(network: Any, indices: tuple[int, ...]) -> None:
    """Leave nothing behind the maps in use, in place."""
    if isinstance(network.norm, nn.Identity):
        # Networks that average tokens before they classify them have their final norm behind the average.
        network.norm = network.fc_norm
    network.prune_intermediate_layers(list(indices), prune_head=True)
    # EVA's blocks are a list; a sequence is what `models.training.blocks` finds.
    network.blocks = nn.Sequential(*network.blocks)
