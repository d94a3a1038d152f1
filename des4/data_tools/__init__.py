"""What is done to data sets outside of a training: checks, splits, downloads, packing into shards, imports."""
