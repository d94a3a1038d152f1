"""From weights to label maps: images in Python, or files and folders on disk."""

from des4.predict.files import predict_files
from des4.predict.prediction import Prediction
from des4.predict.predictor import Predictor
from des4.predict.writing import Outputs

__all__ = ["Outputs", "Prediction", "Predictor", "predict_files"]
