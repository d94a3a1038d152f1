"""A trained network behind HTTP: one image in, class indices out."""

from des4.serve.app import Limits, make_app

__all__ = ["Limits", "make_app"]
