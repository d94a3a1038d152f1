"""Encoders: timm networks cut down to the maps that a decoder reads, and where their weights come from."""
