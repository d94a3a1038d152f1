"""Decoders: an encoder's maps to one embedding a pixel, and the layers that they are made of."""
