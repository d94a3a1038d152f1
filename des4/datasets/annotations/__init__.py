"""Annotations: the JSON files of others, and the shapes in them, read into label maps."""
