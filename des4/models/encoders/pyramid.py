"""Encoders whose maps get smaller with depth: timm's feature pyramids (timm, Apache-2.0, used as a library)."""

from __future__ import annotations

from collections.abc import Mapping

import timm
import torch
from torch import Tensor, nn

from des4.models.encoders.depthwise import speed_up
from des4.models.encoders.encoder import Encoder, first_line
from des4.types import ConfigError

LOW_STRIDE = 4
"""Stride of the low-level map, and of the logits that DeepLabV3+ makes."""


class PyramidEncoder(Encoder):
    """A network cut down to the two maps that DeepLabV3+ reads: at stride 4 and at the output stride.

    name: of a timm model with `features_only`. output_stride: 8, 16 or 32 (32 = as the network was built).
    num_bands: of images. Raises ConfigError if the network does not exist or yields no such maps.
    """

    def __init__(self, name: str, output_stride: int, num_bands: int = 3) -> None:
        settings = {"in_chans": num_bands} | ({} if output_stride == 32 else {"output_stride": output_stride})
        try:
            probe = timm.create_model(name, features_only=True, **settings)
        except Exception as error:
            raise ConfigError(
                f"model.encoder: timm cannot build `{name}` as a feature pyramid at output stride {output_stride} "
                f"({first_line(error)}); choose another encoder, or model.output_stride=32 for networks whose stride "
                "is fixed"
            ) from error
        reduction, channels = probe.feature_info.reduction(), probe.feature_info.channels()
        if LOW_STRIDE not in reduction or reduction[-1] != output_stride:
            raise ConfigError(
                f"model.encoder: `{name}` yields maps at strides {reduction}, but a map at stride {LOW_STRIDE} "
                f"and a last one at {output_stride} (model.output_stride) are needed; choose another encoder or stride"
            )
        _try(probe, name, channels, num_bands)
        low, deep = reduction.index(LOW_STRIDE), len(reduction) - 1
        # Built again, so that blocks behind the maps in use are not there at all. That of the side may be the low one.
        network = timm.create_model(name, features_only=True, out_indices=sorted({low, deep - 1, deep}), **settings)
        speed_up(network)
        super().__init__(name, network, (channels[low], channels[deep]), channels[deep - 1])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Encode a normalised image (B, bands, H, W) to its maps at stride 4 and at the output stride."""
        maps = self.network(image)
        return (maps[0], maps[-1], maps[-2]) if self.yields_side else (maps[0], maps[-1])

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A feature pyramid flattens the containers of some networks: `stages.1.x` of the file is `stages_1.x` here."""
        return {name: value for key, value in state.items() for name in (key, key.replace(".", "_", 1))}


@torch.no_grad()
def _try(network: nn.Module, name: str, channels: list[int], num_bands: int) -> None:
    """Refuse networks bound to one image size or with channels last, before a training meets them."""
    try:
        found = [feature.shape[1] for feature in network.eval()(torch.zeros(1, num_bands, 65, 97))]
    except Exception as error:
        raise ConfigError(
            f"model.encoder: `{name}` cannot read an image of 65 × 97 pixels ({first_line(error)}); choose one that "
            "takes any size"
        ) from error
    if found != channels:
        raise ConfigError(f"model.encoder: `{name}` yields maps with the channels last; choose another encoder")
