"""What methods are made of: supervision by labels, and targets that a network's predictions give."""
