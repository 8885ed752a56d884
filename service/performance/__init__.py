"""How good predictions were, once it is known what their instances turned out to be."""
