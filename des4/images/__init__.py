"""Images: pixels out of files, whole or in parts, of three bands or any number, and the cache that keeps them."""
