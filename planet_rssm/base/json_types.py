"""The type of a JSON object."""

from typing import Any

# Who reads a key of it wrote it himself, or checks what is there.
Json = dict[str, Any]
