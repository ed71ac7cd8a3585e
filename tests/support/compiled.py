"""MuJoCo's models, compiled once in a process: that is most of making an environment."""

import contextlib
import copy
import functools
from collections.abc import Callable
from typing import Any

MODELS = 4  # that are kept, of ten megabytes or more each


def keep(*tasks: tuple[str, str]) -> None:
    """From now on dm_control gets copies of what was compiled before; of these tasks already now.

    A model is known by its whole text and all its assets, and who changes a copy changes no other.
    """
    with contextlib.suppress(ImportError):  # dm_control is not there for every Python
        from dm_control import suite
        from dm_control.mujoco.wrapper import core

        if core._get_model_ptr_from_xml.__module__ != __name__:
            core._get_model_ptr_from_xml = _copies_of(core._get_model_ptr_from_xml)
        for task in tasks:
            suite.load(*task)


def _copies_of(compile_model: Callable[..., Any]) -> Callable[..., Any]:
    @functools.lru_cache(MODELS)
    def compiled(text: str | bytes, assets: tuple[tuple[str, bytes], ...]) -> Any:
        return compile_model(xml_string=text, assets=dict(assets))

    def copied(xml_path: Any = None, xml_string: Any = None, assets: Any = None) -> Any:
        if xml_path is not None or xml_string is None:
            return compile_model(xml_path, xml_string, assets)
        return copy.copy(compiled(xml_string, tuple((assets or {}).items())))

    return copied
