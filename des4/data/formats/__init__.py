"""Formats: one file each that turns a layout into the one internal form (`files`), and what they are read with."""
