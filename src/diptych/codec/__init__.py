"""Names and types, JSON and back."""

from diptych.codec.flaws import decimal_flaw, decimal_remedy, flaw_finder
from diptych.codec.registry import (
    DECIMAL,
    Codec,
    Registered,
    metadata_of,
    require_whole,
    time_of,
)

__all__ = [
    "DECIMAL",
    "Codec",
    "Registered",
    "decimal_flaw",
    "decimal_remedy",
    "flaw_finder",
    "metadata_of",
    "require_whole",
    "time_of",
]
