"""Encoders: timm networks cut down to the maps that a decoder reads (timm, Apache-2.0, used as a library).

`PyramidEncoder`: networks whose maps get smaller with depth. Vision transformers are in `vit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from des4.models.depthwise import speed_up
from des4.types import ConfigError

LOW_STRIDE = 4
"""Stride of the low-level map, and of the logits that DeepLabV3+ makes."""


class Encoder(nn.Module):
    """A timm network, and the channels of the maps that a decoder reads, in the order in which it yields them.

    Attributes: `name`, timm's; `mean`, `std`: of its input in [0, 1], a number a band; at first the RGB statistics that
    its weights expect. `side_channels`: of the map of its stage before last. `yields_side`: whether it yields that one
    too, behind those that the decoder reads; an auxiliary head asks for it.
    """

    network: Any

    def __init__(self, name: str, network: nn.Module, channels: tuple[int, ...], side_channels: int) -> None:
        super().__init__()
        self.name, self.network, self.channels, self.side_channels = name, network, channels, side_channels
        self.yields_side = False
        self.mean: tuple[float, ...] = tuple(self.network.default_cfg["mean"])
        self.std: tuple[float, ...] = tuple(self.network.default_cfg["std"])

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> list[str]:
        """Load weights under timm's names and return the names of the encoder's tensors that the state lacks.

        A convolution of RGB that meets another number of bands is adapted as timm does: repeated and made weaker by as
        much, or summed for one band.
        Raises WeightsError for a state that cannot be fitted to the network.
        """
        own, named = self.network.state_dict(), self.own_names(state)
        fitted = {key: _of_bands(named[key], own[key]) for key in own if key in named}
        fitting = {key: value for key, value in fitted.items() if value.shape == own[key].shape}
        self.network.load_state_dict(fitting, strict=False)
        return [key for key in own if key not in fitting and not key.endswith("num_batches_tracked")]

    def own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a weights file under the names that they have in `network`: timm's."""
        return dict(state)


def _of_bands(weight: Tensor, own: Tensor) -> Tensor:
    """Adapt a weight (out, 3, h, w) to an own one that reads another number of bands; return any other as it is."""
    if weight.ndim == own.ndim == 4 and weight.shape[1] == 3 != own.shape[1]:
        adapted: Tensor = adapt_input_conv(own.shape[1], weight)
        return adapted
    return weight


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


def first_line(error: Exception) -> str:
    """What another library's error says, short enough for one line of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


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
