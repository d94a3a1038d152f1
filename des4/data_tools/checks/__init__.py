"""The check of a data set before any training: every fault at once, and where to begin."""
