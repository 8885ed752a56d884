"""What every table of the policy file is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=64)]
ColumnName = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """A table that holds what is named here, of these types, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False)
