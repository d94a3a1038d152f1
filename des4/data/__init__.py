"""Data: what makes batches of a data set's samples, in an order and with augmentations that are functions of seeds."""

from des4.data.loader import Loader
from des4.data.views import ViewsConfig

__all__ = ["Loader", "ViewsConfig"]
