"""What is done with data before a training reads it."""
