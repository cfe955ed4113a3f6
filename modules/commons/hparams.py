"""Overrides of a configuration on the command line, in GeneFace++'s spelling."""

from __future__ import annotations

from modules.commons.errors import ConfigError


def parse_hparams(text: str) -> dict[str, str]:
    """``"a.b=1,c=2"`` as overrides; commas inside brackets belong to the value.

    Raises:
        ConfigError: a part without '='.
    """
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    overrides = {}
    for part in filter(None, (p.strip() for p in parts)):
        key, separator, value = part.partition("=")
        if not separator:
            raise ConfigError(f"--hparams: {part!r} has no '='; write key=value pairs with commas between")
        overrides[key.strip()] = value.strip()
    return overrides
