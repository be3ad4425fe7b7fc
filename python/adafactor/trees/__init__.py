"""Trees of arrays: their containers, their paths, and what is said of one that does not match."""
