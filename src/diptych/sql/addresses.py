"""Addresses of databases, as people and logs may see them: without a password."""

from __future__ import annotations

import re

_OPTION = re.compile(r"(?i)((?:^|[?&\s])(?:ssl)?password=)[^&\s]*")
_PATH = re.compile(r"\W*sqlite:")
_ADDRESS = re.compile(r"\S+://\S+|\S*:\S*@\S+")


def without_password(url: str) -> str:
    """Return a URL without its password, also one that is no proper URL.

    When in doubt, too much is left out: whatever stands between the user's name and the last ``@``.
    """
    if not _PATH.match(url):
        before, at, host = url.rpartition("@")
        if at:
            scheme, slashes, user = before.partition("://")
            if not slashes:
                scheme, user = "", before
            url = f"{scheme}{slashes}{user.partition(':')[0]}@{host}"
    return _OPTION.sub(r"\1…", url)


def without_passwords(text: str) -> str:
    """Return a text in which every address is without its password."""
    return _ADDRESS.sub(lambda found: without_password(found[0]), text)
