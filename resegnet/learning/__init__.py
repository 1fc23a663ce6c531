"""Everything that learning needs and a prediction does not: data, losses, scores, the training loop."""

from resegnet.errors import require

for _package in ("torch", "datasets", "evaluate"):
    require(_package, "everything about training, evaluation and data sets")
