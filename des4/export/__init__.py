"""Trained networks for other programs: ONNX, int8, torch.export, OpenVINO, and weights with a model card."""

from des4.export.formats import FORMATS, export_model
from des4.export.publish import publish
from des4.export.side_by_side import Measured, measure

__all__ = ["FORMATS", "Measured", "export_model", "measure", "publish"]
