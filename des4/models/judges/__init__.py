"""Networks that judge what another network says: whether it looks real, where it is wrong, what it is worth."""
