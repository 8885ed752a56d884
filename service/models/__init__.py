"""One adapter per library: bytes of an artifact in, predictions and an explainable form out."""
