"""How networks are trained: averages, norms over processes, activations computed again. They know no segmenter."""
