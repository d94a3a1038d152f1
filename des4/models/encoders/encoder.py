"""What every encoder is: a timm network cut down to the maps that a decoder reads (timm, Apache-2.0, as a library)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn


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


def first_line(error: Exception) -> str:
    """What another library's error says, short enough for one line of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _of_bands(weight: Tensor, own: Tensor) -> Tensor:
    """Adapt a weight (out, 3, h, w) to an own one that reads another number of bands; return any other as it is."""
    if weight.ndim == own.ndim == 4 and weight.shape[1] == 3 != own.shape[1]:
        adapted: Tensor = adapt_input_conv(own.shape[1], weight)
        return adapted
    return weight
