"""Masks in MATLAB files, as SBD keeps them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat


def sbd_mask(labels: NDArray[np.uint8]) -> bytes:
    """Write a mask as SBD does: beside the labels a cell of outlines, and the classes present."""
    outlines = np.empty((2, 1), object)
    outlines[:, 0] = [np.zeros((1, 1)), np.ones((3, 2))]
    present = np.unique(labels[labels > 0]).astype(np.float64)[:, None]
    return mat_file(GTcls={"Boundaries": outlines, "Segmentation": labels, "CategoriesPresent": present})


def mat_file(**variables: object) -> bytes:
    """Write variables into a file."""
    file = io.BytesIO()
    savemat(file, variables, do_compression=True)
    return file.getvalue()
