"""Settings from presets, files and `key=value`, and back to text."""

import difflib
import logging
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular, write_atomic
from planet_rssm.base.trust import require
from planet_rssm.config.schema import FORMAT, RECIPES, SIZES, BehaviorSettings, Settings

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
ACTING = (
    "planner.",
    "rssm.filter_by",
    "rssm.plan_by",
)  # how a trained model is acted with: no weight depends on them
MOST = 1 << 18  # bytes of a settings file; ours have some 4000
SHORT = "behavior"  # may be written for its `.name`
OPEN = "env.kwargs"  # a mapping whose entries are written as keys of their own
BASE = "preset"  # a settings file's own key: the preset whose settings it changes

_log = logging.getLogger("planet_rssm")


def presets() -> dict[str, Path]:
    """Return the shipped presets by name, `systems/NAME` in a folder of their own."""
    folder = _preset_folder()
    return {
        str(path.relative_to(folder).with_suffix("")): path
        for path in sorted(folder.rglob("*.yaml"))
    }


def load(preset: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Resolve a preset's name or a settings file, then `key=value` overrides, later ones winning.

    A settings file changes the preset that its key `preset` names. One that names none either
    states every setting, as `dump` writes it, or takes the others from the defaults, which are
    those of `planet`: that is logged.

    Raises:
        PlanetError: an unknown preset or key, a value that does not fit, or settings that
            contradict each other.
    """
    values = parse_overrides(overrides)
    path = _find(str(preset))
    held = _read(path)
    settings = _changed(held if str(preset) in presets() else _on_its_preset(path, held), values)
    if _of_a_run(path):
        require(imported(settings), str(path))
    return settings


def imported(settings: Settings) -> dict[str, Any]:
    """Return, as dotted keys, the settings that may name code which training with them imports."""
    values = flatten(settings)
    return {
        key: value
        for key, value in values.items()
        if key != "env.id" or settings.data.folder is None
    }


def _of_a_run(path: Path) -> bool:
    """Return whether a settings file is one that a run was written with: then its maker's word, not the user's."""
    return any(
        (path.parent / name).exists() for name in ("run.json", "checkpoints", "metrics.jsonl")
    )


def override(settings: Settings, overrides: Sequence[str]) -> Settings:
    """Return other settings, changed by `key=value` overrides; see `load` for what is raised."""
    return _changed(flatten(settings), parse_overrides(overrides))


def with_planner(settings: Settings, overrides: Sequence[str]) -> Settings:
    """Return the settings of a trained model with other settings of how it acts, those of ACTING.

    Raises:
        PlanetError: another setting is among them; or see `load`.
    """
    for key, value in parse_overrides(overrides).items():
        if key in flatten(settings) and not key.startswith(ACTING):
            fix = "set planner.precision" if key == "train.precision" else "train another run"
            raise PlanetError(
                f"-s {key}={value}: only planner.…, rssm.filter_by and rssm.plan_by may change now; {fix}"
            )
    return override(settings, overrides)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of `key=value` texts by key, later ones winning; the keys are not looked at.

    Raises:
        PlanetError: a text of another form, or a value that is not YAML.
    """
    values = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise PlanetError(
                f"-s {text}: not of the form key=value; write for example -s env.size=64"
            )
        try:
            values[key.strip()] = yaml.load(value, _Loader)
        except _NOT_YAML:
            raise PlanetError(f"-s {text}: the value is not YAML; quote it") from None
    return _spelled_out(values)


def resolve(values: Mapping[str, Any]) -> Settings:
    """Build settings from dotted keys; see `load` for what is raised.

    A `model.size` stands for the keys in SIZES, a `behavior.name` for those in RECIPES; those given
    beside it win.
    """
    known = flatten(Settings())
    values = _spelled_out(values)
    values = _stood_for(values) | values
    newer = values.get("format")
    if isinstance(newer, int) and newer > FORMAT:
        raise PlanetError(
            f"settings of format {_shown(newer)}: this version reads up to {FORMAT}; upgrade planet_rssm"
        )
    tree: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            shown, names = _shown(key), [*known, SHORT]
            raise PlanetError(
                f"unknown setting {shown}{nearest(key if isinstance(key, str) else shown, names)}"
            )
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise PlanetError(_one_line(error)) from None


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds as it was meant when it was written.

    Before there was `planner.warm_start`, whole files had iCEM's momentum and CEM's first spread
    whatever the planner.
    """
    whole = "format" in values and "planner.warm_start" not in values
    if not whole or values.get("planner.name") == "icem":
        return values
    meant = {"planner.momentum": 0.1, "planner.init_std": 1.0}
    return {key: value for key, value in values.items() if key not in meant or value != meant[key]}


def sized(size: Any) -> dict[str, Any]:  # noqa: ANN401 (whatever a file holds)
    """Return the settings that a size stands for; nothing for none, or for one that validation will refuse."""
    if not isinstance(size, str) or size not in SIZES:
        return {}
    deter, hidden, classes, depth, units = SIZES[size]
    widths = {f"model.{name}_units": units for name in ("vector", "reward", "continue")} | {
        "behavior.units": units
    }
    return {
        "rssm.deter": deter,
        "rssm.hidden": hidden,
        "rssm.classes": classes,
        "model.depth": depth,
        **widths,
    }


def _on_its_preset(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Return what a user's settings file says together with the preset that it names."""
    if BASE in values:
        name, shipped = values.pop(BASE), presets()
        if not isinstance(name, str) or name not in shipped:
            raise PlanetError(
                f"settings file {path}: {BASE}: {_shown(name)} is none{nearest(str(name), shipped)}"
            )
        return _merged(_read(shipped[name]), _spelled_out(values))
    open_keys = [key for key in flatten(Settings()) if key not in values]
    if open_keys and (
        "format" not in values or len(open_keys) > len(values)
    ):  # else `planet config` has written it
        _log.warning(
            "settings file %s: names no preset, so the %d settings that it does not state are those of planet, such as "
            "env.id and train.env_steps; for others write one as its first line, such as `preset: quickstart`",
            path, len(open_keys),
        )  # fmt: skip
    return values


def _changed(held: Mapping[str, Any], values: Mapping[str, Any]) -> Settings:
    """Build settings from those `held`, changed by `values`."""
    return resolve(_merged(held, values))


def _merged(held: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings `held`, changed by `values`: what a new name stands for wins over the old."""
    new = _stood_for(values)
    if (
        "behavior.name" in values and "model.size" not in values
    ):  # the size that there is sets the width still
        new |= {
            key: width
            for key, width in sized(held.get("model.size")).items()
            if key == "behavior.units"
        }
    named = values.get("env.id")
    if (
        isinstance(named, str)
        and (named.startswith("gym/") or ":" in named)
        and held.get("env.renderer") == "raycast"
    ):
        new["env.renderer"] = "auto"  # was said of a task of dm_control, which alone are ray cast
    return {**held, **new, **values, **_opened(held, values)}


def _opened(held: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping OPEN with what `values` change in it."""
    before, after = held.get(OPEN), values.get(OPEN)
    return (
        {OPEN: {**before, **after}} if isinstance(before, dict) and isinstance(after, dict) else {}
    )


def _stood_for(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the names of a recipe and of a size stand for."""
    name = values.get("behavior.name")
    recipe = (
        flatten(BehaviorSettings()) | RECIPES[name]
        if isinstance(name, str) and name in RECIPES
        else {}
    )
    return {f"behavior.{key}": value for key, value in recipe.items()} | sized(
        values.get("model.size")
    )


def _spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with the short form of one key written out, and the entries of OPEN in one mapping."""
    long = {f"{SHORT}.name" if key == SHORT else key: value for key, value in values.items()}
    entries = {
        key: long.pop(key)
        for key in list(long)
        if isinstance(key, str) and key.startswith(f"{OPEN}.")
    }
    if not entries:
        return long
    named = {key.removeprefix(f"{OPEN}."): value for key, value in entries.items()}
    return long | {OPEN: {**long[OPEN], **named} if isinstance(long.get(OPEN), dict) else named}


def flatten(settings: BaseModel) -> dict[str, Any]:
    """Return the settings as dotted keys, the form that files and `-s` use."""
    flat: dict[str, Any] = {}
    for name, value in settings:
        if isinstance(value, BaseModel):
            flat.update({f"{name}.{key}": inner for key, inner in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def dump(settings: Settings) -> str:
    """Return the YAML text that `load` reads back to equal settings."""
    return yaml.safe_dump(flatten(settings), sort_keys=False)


def save(settings: Settings, path: Path) -> None:
    """Write the resolved settings; see `files.write_atomic`."""
    write_atomic(path, [dump(settings).encode()])


def nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the end of an error line: the closest known word, or how to see all of them."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _preset_folder() -> Path:
    package = Path(__file__).parents[1]
    packaged = package / "configs"  # in a wheel
    return packaged if packaged.is_dir() else package.parent / "configs"


def _find(preset: str) -> Path:
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
    raise PlanetError(f"unknown preset {preset!r}{nearest(preset, shipped)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(read_regular(path, MOST).decode(), _Loader)
    except OSError as error:
        raise PlanetError(
            f"settings file {path}: not readable ({error.strerror}); give another"
        ) from None
    except _NOT_YAML as error:
        raise PlanetError(
            f"settings file {path}: not readable as YAML ({' '.join(str(error).split())})"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise PlanetError(
            f"settings file {path}: holds {type(values).__name__}, not lines of `section.key: value`"
        )
    return upgraded(values)


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":  # a cross-check of ours, already a whole line
        return str(first["ctx"]["error"])
    key = ".".join(str(part) for part in first["loc"])
    return f"{key} = {_shown(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _shown(value: Any) -> str:  # noqa: ANN401 (whatever a file holds)
    """Return a value as an error line quotes it: not a page of it."""
    try:
        return _shortener.repr(value)
    except ValueError:  # it holds a whole number of more digits than Python will write
        return f"a {type(value).__name__} too long to show"


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, where PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "a key is given twice", node.start_mark
            )
        return mapping
