"""Mathematics on tensors: entropy, sampling, mixing, resizing, sums over ranks. Knows no network and no data set."""
