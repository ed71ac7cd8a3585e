"""Texts of YAML, each parsed once in a process: the same presets are read in most tests."""

import functools
import pickle
from typing import Any

import yaml

_load = yaml.load


@functools.lru_cache(1000)
def _pickled(text: str | bytes, loader: type) -> bytes:
    return pickle.dumps(_load(text, loader))


def _loaded(stream: Any, Loader: type) -> Any:  # noqa: N803 (the name is PyYAML's)
    """Return what yaml.load does, made anew each time; an error is raised anew too."""
    if isinstance(stream, str | bytes):
        return pickle.loads(_pickled(stream, Loader))
    return _load(stream, Loader)


def keep() -> None:
    """From now on yaml.load parses a text that it is given once."""
    yaml.load = _loaded
