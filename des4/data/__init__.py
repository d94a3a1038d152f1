"""Data: what makes batches of a data set's samples, in an order and with augmentations that are functions of seeds."""

from importlib import import_module
from typing import Any

from des4.data.balance import Balance, BalanceConfig
from des4.data.loader import Loader
from des4.data.views import ViewsConfig

__all__ = ["Balance", "BalanceConfig", "Loader", "ViewsConfig"]


def __getattr__(name: str) -> Any:  # whatever has that name there
    """Return what has moved to `des4.datasets`: `from des4.data import FolderConfig, open_files` goes on working."""
    datasets = import_module("des4.datasets")
    if name in datasets.__all__:
        return getattr(datasets, name)
    raise AttributeError(f"module 'des4.data' has no attribute '{name}'")
