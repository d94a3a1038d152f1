"""DPT decoder (Ranftl et al., "Vision transformers for dense prediction", ICCV 2021), of any grid of tokens.

Reassemble (section 3.1): the maps of four depths, which all have the stride of the patches, become a pyramid of 1/4,
1/2, 1 and 2 of it. Fusion, after RefineNet (Lin et al., CVPR 2017): from the coarsest on, each level is added to what
came from below and refined by residual units. BatchNorm in these units and the last block before the classifier are
those of the authors' network for segmentation; UniMatch v2 has no BatchNorm there.

Ours: maps are resized to each other's own sizes, never by a fixed factor, and not beyond the finest level, where the
original doubles it once more. The 1×1 convolution of a fusion comes before the resizing, with which it commutes, and so
costs a quarter; at the finest level there is none, for another convolution follows at once. Class tokens are not read,
as in UniMatch v2. The reassembled maps have D/8, D/4, D/2 and D channels for tokens of size D, which are UniMatch v2's
for ViT-S and ViT-B.
"""

from __future__ import annotations

from torch import Tensor, nn

from des4.models.decoders.layers import EmbeddingKind, conv_norm_relu, embedding_layer, start_weights
from des4.ops.resize import upsample

FACTORS = (4, 2, 1, 0.5)
"""By how much the map of each depth is magnified, shallow ones first."""


class DPT(nn.Module):
    """Decoder from a transformer's four maps to an embedding (B, D, 4h, 4w), at a quarter of the patch's stride.

    inputs: D of the tokens, the channels of all four maps. channels: width of the fusion (256 in the paper's network).
    embedding, embedding_dim: of the last layer; see `embedding_layer`.
    """

    def __init__(self, inputs: int, *, channels: int, embedding: EmbeddingKind, embedding_dim: int) -> None:
        super().__init__()
        self.reassemble = nn.ModuleList(reassemble(inputs, factor, channels) for factor in FACTORS)
        self.coarsest = ResidualUnit(channels)
        self.fusions = nn.ModuleList(Fusion(channels) for _ in FACTORS[:-1])
        self.last = conv_norm_relu(channels, channels, 3)
        self.embed, self.dim = embedding_layer(embedding, channels, embedding_dim)
        start_weights(self)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Decode four maps (B, inputs, h, w), shallow ones first."""
        levels = [layer(tokens) for layer, tokens in zip(self.reassemble, maps, strict=True)]
        fused = self.coarsest(levels.pop())
        for fusion in self.fusions:
            fused = fusion(levels.pop(), fused)
        return self.embed(self.last(fused))  # type: ignore[no-any-return]


class Fusion(nn.Module):
    """Adds what came from the coarser levels to the level at hand, and refines the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, channels, 1)
        self.enter, self.refine = ResidualUnit(channels), ResidualUnit(channels)

    def forward(self, level: Tensor, coarser: Tensor) -> Tensor:
        """(B, channels, h, w) and (B, channels, any, any) to the shape of the first."""
        below = upsample(self.project(coarser), (level.shape[-2], level.shape[-1]))
        return self.refine(self.enter(level) + below)  # type: ignore[no-any-return]


class ResidualUnit(nn.Module):
    """Two 3×3 convolutions, each behind a ReLU, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(),  # not in place: the input goes past it, too
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        return x + self.branch(x)  # type: ignore[no-any-return]


def reassemble(inputs: int, factor: float, channels: int) -> nn.Sequential:
    """From tokens (B, inputs, h, w) to a level (B, channels, factor·h, factor·w); halves are rounded up."""
    width = max(1, int(inputs / (2 * factor)))
    layers: list[nn.Module] = [nn.Conv2d(inputs, width, 1)]
    if factor > 1:
        layers.append(nn.ConvTranspose2d(width, width, int(factor), stride=int(factor)))
    elif factor < 1:
        layers.append(nn.Conv2d(width, width, 3, stride=int(1 / factor), padding=1))
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1, bias=False))
