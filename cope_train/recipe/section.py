"""What every section of a recipe has in common."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# Floats become decimals by way of their shortest text, so that 0.15 is fifteen hundredths and books balance exactly.
Money = Annotated[Decimal, Field(ge=0, strict=False), BeforeValidator(lambda v: str(v) if isinstance(v, float) else v)]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, types are not guessed, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
