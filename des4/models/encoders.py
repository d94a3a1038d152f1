"""Encoders: any timm network that yields a stride-4 map and a deep one (timm, Apache-2.0, used as a library)."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from des4.types import ConfigError

LOW_STRIDE = 4
"""Stride of the low-level map, and of the logits."""


class Encoder(nn.Module):
    """A timm network cut down to the two maps that DeepLabV3+ reads.

    name: of a timm model with `features_only`. output_stride: 8, 16 or 32 (32 = as the network was built).
    Attributes: `low_channels`, `deep_channels`; `mean`, `std`: the RGB statistics its weights expect, in [0, 1].
    Raises ConfigError if the network does not exist or yields no such maps.
    """

    def __init__(self, name: str, output_stride: int) -> None:
        super().__init__()
        stride = {} if output_stride == 32 else {"output_stride": output_stride}
        try:
            probe = timm.create_model(name, features_only=True, **stride)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"model.encoder: timm cannot build `{name}` as a feature pyramid at output stride {output_stride} "
                f"({reason}); choose another encoder, or model.output_stride=32 for networks whose stride is fixed"
            ) from error
        reduction, channels = probe.feature_info.reduction(), probe.feature_info.channels()
        if LOW_STRIDE not in reduction or reduction[-1] != output_stride:
            raise ConfigError(
                f"model.encoder: `{name}` yields maps at strides {reduction}, but a map at stride {LOW_STRIDE} "
                f"and a last one at {output_stride} (model.output_stride) are needed; choose another encoder or stride"
            )
        _try(probe, name, channels)
        low, deep = reduction.index(LOW_STRIDE), len(reduction) - 1
        self.low_channels, self.deep_channels = channels[low], channels[deep]
        # Built again, so that blocks behind the maps in use are not there at all.
        self.network = timm.create_model(name, features_only=True, out_indices=(low, deep), **stride)
        self.mean: tuple[float, float, float] = tuple(self.network.default_cfg["mean"])
        self.std: tuple[float, float, float] = tuple(self.network.default_cfg["std"])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a normalised image (B, 3, H, W) to its maps at stride 4 and at the output stride."""
        low, deep = self.network(image)
        return low, deep

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> list[str]:
        """Load weights under timm's names and return the names of the encoder's tensors that the state lacks."""
        own = self.network.state_dict()
        # A feature pyramid flattens the containers of some networks: `stages.1.x` of the file is `stages_1.x` here.
        named = {new: value for key, value in state.items() for new in (key, key.replace(".", "_", 1))}
        renamed = {key: named[key] for key in own if key in named and named[key].shape == own[key].shape}
        self.network.load_state_dict(renamed, strict=False)
        return [key for key in own if key not in renamed and not key.endswith("num_batches_tracked")]


@torch.no_grad()
def _try(network: nn.Module, name: str, channels: list[int]) -> None:
    """Refuse networks bound to one image size or with channels last, before a training meets them."""
    try:
        found = [feature.shape[1] for feature in network.eval()(torch.zeros(1, 3, 65, 97))]
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"model.encoder: `{name}` cannot read an image of 65 × 97 pixels ({reason}); choose one that takes any size"
        ) from error
    if found != channels:
        raise ConfigError(f"model.encoder: `{name}` yields maps with the channels last; choose another encoder")
