"""What can go wrong between a model file and a loaded model."""


class ModelLoadError(Exception):
    """The artifact cannot be served; the message says why and what to do.

    ModelLoadError
    └── UnknownCategoriesError   a category column's levels are stored nowhere
    """


class UnknownCategoriesError(ModelLoadError):
    """A category column has no level names, in the artifact or from the caller."""

    def __init__(self, column: str, *, reason: str) -> None:
        super().__init__(
            f"category column {column!r}: {reason}; pass its levels, in the order of the codes "
            "the model was trained on, with --categories"
        )
        self.column = column
