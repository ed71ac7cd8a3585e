"""Settings files: where the presets are, and how a file becomes dotted keys and their values."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular

MOST = 1 << 18  # bytes of a settings file; ours have some 4000
# What PyYAML raises: its constructors of dates, numbers and switches let Python's own errors
# through.
_NOT_YAML = (
    yaml.YAMLError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    OverflowError,
    RecursionError,
)
_shortener = reprlib.Repr()
_shortener.maxstring = _shortener.maxother = 80


def presets() -> dict[str, Path]:
    """Return the shipped presets by name, `systems/NAME` in a separate folder."""
    folder = _preset_folder()
    return {
        str(path.relative_to(folder).with_suffix("")): path
        for path in sorted(folder.rglob("*.yaml"))
    }


def find(preset: str) -> Path:
    """Return the file of a preset's name, or the settings file of that path.

    Raises:
        PlanetError: there is neither.
    """
    shipped = presets()
    if preset in shipped:
        return shipped[preset]
    path = Path(preset)
    if path.suffix in (".yaml", ".yml"):
        if path.exists():
            return path
        raise PlanetError(
            f"settings file {preset}: no such file; give a preset ({', '.join(shipped)}) or a file"
        )
    if path.is_file():
        raise PlanetError(f"settings file {preset}: must end in .yaml; rename it")
    raise PlanetError(f"unknown preset {preset!r}{nearest(preset, shipped)}")


def read(path: Path, kind: str = "settings file") -> dict[str, object]:
    """Return the values in a YAML file by their keys, which are not looked at.

    Args:
        path: of the file.
        kind: what an error line calls it.

    Raises:
        PlanetError: it cannot be read, or is no YAML mapping.
    """
    try:
        values = yaml.load(read_regular(path, MOST).decode(), _Loader)
    except OSError as error:
        raise PlanetError(f"{kind} {path}: not readable ({error.strerror}); give another") from None
    except _NOT_YAML as error:
        raise PlanetError(
            f"{kind} {path}: not readable as YAML ({' '.join(str(error).split())})"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise PlanetError(
            f"{kind} {path}: holds {type(values).__name__}, not lines of `section.key: value`"
        )
    return upgraded(values)


def upgraded(values: dict[str, object]) -> dict[str, object]:
    """Return what a file holds as it was meant when it was written.

    Before there was `planner.warm_start`, complete files had iCEM's momentum and CEM's first spread
    whatever the planner.
    """
    complete = "format" in values and "planner.warm_start" not in values
    if not complete or values.get("planner.name") == "icem":
        return values
    meant = {"planner.momentum": 0.1, "planner.init_std": 1.0}
    return {key: value for key, value in values.items() if key not in meant or value != meant[key]}


def parse(text: str) -> tuple[str, object]:
    """Return key and value of a text `key=value`.

    Raises:
        PlanetError: a text of another form, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise PlanetError(f"-s {text}: not of the form key=value; write for example -s env.size=64")
    try:
        return key.strip(), yaml.load(value, _Loader)
    except _NOT_YAML:
        raise PlanetError(f"-s {text}: the value is not YAML; quote it") from None


def nearest(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """Return the end of an error line: the closest known word, or how to see all of them."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def quoted(value: object) -> str:
    """Return a value as an error line quotes it: not a page of it."""
    try:
        return _shortener.repr(value)
    except ValueError:  # it holds an integer of more digits than Python will write
        return f"a {type(value).__name__} too long to show"


def _preset_folder() -> Path:
    package = Path(__file__).parents[1]
    packaged = package / "configs"  # in a wheel
    return packaged if packaged.is_dir() else package.parent / "configs"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is given twice", node.start_mark
            )
        return mapping
