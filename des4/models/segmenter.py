"""A segmenter is an encoder, a decoder and a classifier; this file puts them together from a `ModelConfig`."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from des4.models.decoders.deeplab import DeepLabV3Plus
from des4.models.decoders.dpt import DPT
from des4.models.decoders.layers import EmbeddingKind
from des4.models.encoders.encoder import Encoder
from des4.models.encoders.pyramid import PyramidEncoder
from des4.models.encoders.vit import TransformerEncoder, is_transformer
from des4.models.encoders.weights import load_pretrained
from des4.models.heads.linear import LinearClassifier
from des4.models.heads.prototypes import PrototypeClassifier, Start
from des4.models.training.recompute import recompute_activations
from des4.types import Bands, Config

HeadName = Literal["linear", "prototype"]
Head = nn.Module
Decoder = DeepLabV3Plus | DPT


class ModelConfig(Config):
    """The network. Defaults are the paper's network, on a CPU-sized encoder."""

    encoder: str = "tf_efficientnet_lite0"
    """A timm network ([encoders](encoders.md)); `resnet101` in the paper. The decoder follows from it: DPT for a vision
    transformer, DeepLabV3+ for all others."""
    weights: str = "package"
    """Weights of the encoder: `package` (of the default encoder alone, in the pip package of the `pretrained` extra),
    `timm` (downloaded by timm), `none` (random), or a path to a .safetensors, .pth or .bin file."""
    output_stride: Literal[8, 16, 32] = 16
    """Stride of the deep map; `32` leaves the encoder as it was built. Vision transformers keep the stride of their
    patches: the default has no effect there, and another value is refused."""
    channels: int = Field(256, ge=1)
    """Width of the decoder."""
    low_channels: int = Field(48, ge=1)
    """Width of the projected low-level map of DeepLabV3+; DPT has none."""
    head: Literal["auto", "linear", "prototype"] = "auto"
    """Classifier; `auto`: the method's own."""
    embedding: Literal["auto", "none", "linear", "norm"] = "auto"
    """Last layer of the decoder; `auto`: `none` before a linear classifier and `norm` before prototypes [ours]."""
    embedding_dim: int = Field(256, ge=2)
    """D, the size of a pixel's embedding where there is one [ours: the paper does not state it]."""
    temperature: float = Field(0.1, gt=0)
    """Divides the cosines of the prototype classifier [ours]; 1 is the paper read literally."""
    prototype_momentum: float = Field(0.99, ge=0, lt=1)
    """τ2 of eq. 12 [paper]."""
    prototype_start: Start = "first_seen"
    """Where a prototype begins [ours]: at the mean of its class when that is `first_seen`, or at a `random` unit vector
    that only EMA moves."""
    checkpointing: bool = False
    """Gradient checkpointing: compute activations again in the backward pass instead of keeping them. Less memory, one
    more forward pass in a step, the same numbers."""


class Segmenter(nn.Module):
    """Encoder, decoder and classifier. RGB, or bands, in [0, 1] goes in, logits (B, C, h, w) come out: at stride 4 with
    DeepLabV3+, at a quarter of the patches' stride with DPT.

    The network normalises its input itself, so whoever feeds it needs to know nothing about its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, decoder: Decoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.register_buffer("mean", torch.tensor(encoder.mean), persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std), persistent=False)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """The encoder's maps of an image (B, bands, H, W) in [0, 1], as its decoder reads them."""
        return self.encode_with_side(image)[0]

    def encode_with_side(self, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """The same, and the map of the encoder's stage before last, which an auxiliary head reads; None without one."""
        maps: tuple[Tensor, ...] = self.encoder((image - self.mean[:, None, None]) / self.std[:, None, None])
        count = len(self.encoder.channels)
        return maps[:count], maps[count] if len(maps) > count else None

    def features(self, image: Tensor) -> Tensor:
        """Embeddings (B, D, h, w) of an image (B, bands, H, W) in [0, 1]."""
        return self.features_with_side(image)[0]

    def features_with_side(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and the map of the encoder's stage before last, as `encode_with_side` has it."""
        maps, side = self.encode_with_side(image)
        return self.decoder(maps), side

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, C, h, w) of an image (B, bands, H, W) in [0, 1]."""
        return self.head(self.features(image))  # type: ignore[no-any-return]


def build_segmenter(
    config: ModelConfig, num_classes: int, head: HeadName, bands: Bands | None = None, *, pretrained: bool = True
) -> Segmenter:
    """Build a segmenter with the classifier `head`, unless the config names another one.

    bands: what images are made of, whose statistics the network normalises with; None: RGB, with those of the encoder.
    pretrained: load the encoder's weights as configured; False where a trained state is loaded over them anyway.
    Raises ConfigError for an encoder that does not fit and WeightsError for weights that do not.
    """
    name = head if config.head == "auto" else config.head
    embedding: EmbeddingKind = (
        config.embedding if config.embedding != "auto" else ("none" if name == "linear" else "norm")
    )
    encoder, decoder = _networks(config, embedding, len(bands.numbers) if bands else 3)
    if bands:
        encoder.mean, encoder.std = bands.mean, bands.std
    classifier: Head
    if name == "linear":
        classifier = LinearClassifier(num_classes, decoder.dim)
    else:
        classifier = PrototypeClassifier(
            num_classes,
            decoder.dim,
            temperature=config.temperature,
            momentum=config.prototype_momentum,
            start=config.prototype_start,
        )
    if pretrained:
        load_pretrained(encoder, config.weights)
    segmenter = Segmenter(encoder, decoder, classifier)
    if config.checkpointing:
        recompute_activations(segmenter)
    # Channels last: depthwise and 1×1 convolutions are memory-bound, and read their input in one stretch this way.
    return segmenter.to(memory_format=torch.channels_last)


def _networks(config: ModelConfig, embedding: EmbeddingKind, num_bands: int) -> tuple[Encoder, Decoder]:
    """Build the encoder, and the decoder that reads its maps."""
    if is_transformer(config.encoder):
        transformer = TransformerEncoder(config.encoder, config.output_stride, num_bands)
        return transformer, DPT(
            transformer.channels[0],
            channels=config.channels,
            embedding=embedding,
            embedding_dim=config.embedding_dim,
        )
    pyramid = PyramidEncoder(config.encoder, config.output_stride, num_bands)
    low_inputs, deep_inputs = pyramid.channels
    return pyramid, DeepLabV3Plus(
        deep_inputs,
        low_inputs,
        output_stride=config.output_stride,
        channels=config.channels,
        low_channels=config.low_channels,
        embedding=embedding,
        embedding_dim=config.embedding_dim,
    )
