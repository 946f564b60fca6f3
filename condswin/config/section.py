"""What all sections of `params.yaml` are made of."""

import warnings
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# A key may be called `copy`: pydantic's method of that name is deprecated, and called by nobody.
warnings.filterwarnings("ignore", 'Field name "copy"')

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of `params.yaml`: whatever it does not name is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
