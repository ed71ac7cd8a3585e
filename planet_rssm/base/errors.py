"""The one exception whose message a user reads instead of a traceback."""


class PlanetError(Exception):
    """Bad input, or something broken around us: what, the value, what is allowed, the fix."""

    def __init__(self, line: str) -> None:
        """Take the line; a break in it, which came with a quoted value, becomes a space."""
        super().__init__(" ".join(line.splitlines()))
