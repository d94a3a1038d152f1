"""Figures of merit."""

from des4.metrics.confusion import PseudoLabelQuality, Results, confusion_matrix
from des4.ops.tail import tail_classes

__all__ = ["PseudoLabelQuality", "Results", "confusion_matrix", "tail_classes"]
