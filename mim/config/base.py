"""What every block of settings is made of."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = 1

Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Size = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class Config(BaseModel):
    """A strict block of settings: an unknown key is an error, no value is coerced."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, validate_default=True)
