"""Names and types, JSON and back. For the rest of the house: nothing here is public."""

from diptych.codec.flaws import decimal_flaw as decimal_flaw
from diptych.codec.flaws import decimal_remedy as decimal_remedy
from diptych.codec.flaws import flaw_finder as flaw_finder
from diptych.codec.registry import DECIMAL as DECIMAL
from diptych.codec.registry import Codec as Codec
from diptych.codec.registry import Registered as Registered
from diptych.codec.registry import metadata_of as metadata_of
from diptych.codec.registry import require_whole as require_whole
from diptych.codec.registry import time_of as time_of
