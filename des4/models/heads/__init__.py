"""What reads an encoder's maps or a decoder's embeddings: classifiers, and networks that methods add beside them."""
