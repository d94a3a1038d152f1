"""A teacher whose decoder learns from labels alone, so that no pseudo-label biases it (DeS4, Ding et al., IJCAI 2023).

Its encoder follows the student's, and gets no gradient: its maps are cut off. Its decoder, with its classifier where
that is linear, starts as a copy of the student's and then goes its own way, by the loss of eqs. 7-8.
"""

from __future__ import annotations

from torch import Tensor

from des4.models.segmenter import Segmenter


def decoded_alone(teacher: Segmenter, maps: tuple[Tensor, ...], train: bool) -> tuple[Tensor, Tensor]:
    """Embeddings (B, D, h, w) and logits (B, C, h, w) of labeled images, from maps that carry no gradient.

    train: whether the decoder's norms take the statistics of the batch, and remember them; it stays in that mode.
    """
    teacher.decoder.train(train)
    features: Tensor = teacher.decoder(maps)
    return features, teacher.head(features)
