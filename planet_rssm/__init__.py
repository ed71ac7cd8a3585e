"""Learn a recurrent state-space model from pixels, then act by searching in it.

The public names are loaded when first used, so that `import planet_rssm` imports no torch, mujoco or matplotlib.
"""

import importlib
from typing import Any

_MODULE_OF: dict[str, str] = {}  # public name: the module that defines it

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
