"""How long records are kept: the classes that laws name, or a number of days."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Literal, Self

RetentionClass = Literal["eu_ai_act", "us_reg_b", "hipaa"]
MOST_DAYS = 36_500

# Months and years as the longest that they can be: a day too long is allowed, one too short is not.
CLASS_DAYS: Mapping[str, int] = MappingProxyType(
    {
        "eu_ai_act": 183,  # six months: Regulation (EU) 2024/1689, Articles 19(1) and 26(6)
        "us_reg_b": 762,  # 25 months: 12 CFR 1002.12(b)
        "hipaa": 2192,  # six years: 45 CFR 164.316(b)(2)
    }
)


@dataclass(frozen=True, slots=True)
class Retention:
    """Its name in headers, and how long after its receipt a record is kept."""

    name: str
    period: timedelta

    @classmethod
    def of(cls, said: RetentionClass | int) -> Self:
        """That of a class, or of a number of days."""
        if isinstance(said, int):
            return cls(f"{said}_days", timedelta(days=said))
        return cls(said, timedelta(days=CLASS_DAYS[said]))

    @classmethod
    def default(cls, days: int) -> Self:
        """That of models the policy file says nothing of."""
        return cls("default", timedelta(days=days))
