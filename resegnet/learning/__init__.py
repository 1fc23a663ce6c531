"""Everything that learning needs and a prediction does not: data, losses, scores, the training loop."""
