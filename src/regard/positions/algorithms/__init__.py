"""What the distributions compute with: partition functions, marginals, the best events and drawn ones."""
