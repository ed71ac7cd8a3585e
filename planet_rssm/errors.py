"""The one exception whose message a user reads instead of a traceback."""


class PlanetError(Exception):
    """Bad input or a broken surrounding, told in one line: what, the value, what is allowed, the mend."""
