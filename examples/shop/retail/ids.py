"""What identifies things: a field of one of these types tags its message."""

from typing import Annotated

from diptych import Tag

InvoiceId = Annotated[str, Tag("invoice")]
"""As printed on the invoice: ``536365``, ``C536379``."""

CustomerId = Annotated[str, Tag("customer")]
"""``17850``. A guest has none."""
