"""Settings from presets, files and `key=value`, and back to text."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import write_atomic
from planet_rssm.base.json_types import Json
from planet_rssm.base.trust import require
from planet_rssm.config.behavior import RECIPES, BehaviorSettings
from planet_rssm.config.env import is_dm_control, same_task
from planet_rssm.config.files import find, nearest, parse, presets, quoted, read
from planet_rssm.config.model import SIZES
from planet_rssm.config.planner import unused
from planet_rssm.config.schema import FORMAT, Settings

# How a trained model is acted with: no weight depends on them.
ACTING = ("planner.", "rssm.filter_by", "rssm.plan_by")
SHORT = "behavior"  # may be written for its `.name`
OPEN = "env.kwargs"  # a mapping whose entries are written as separate keys
CHOICE = ("planner.name", "planner.weigh")  # they decide which settings a planner uses
BASE = "preset"  # a settings file's own key: the preset whose settings it changes
TASKS = "tasks"  # a preset's own key: by task of dm_control, what it changes there

_WORDS = {  # pydantic's, and ours
    "Input should be": "must be",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
    "a valid tuple": "a list, as [a, b]",
}

_log = logging.getLogger("planet_rssm")


def load(preset: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Resolve a preset's name or a settings file, then `key=value` overrides, later ones winning.

    A settings file changes the preset that its key `preset` names. One that names none either
    states every setting, as `dump` writes it, or takes the others from the defaults, which are
    those of `planet`: that is logged.

    Raises:
        PlanetError: an unknown preset or key, a value that does not fit, settings that contradict
            each other, or a setting of a planner that is not the one chosen.
    """
    values = parse_overrides(overrides)
    path = find(str(preset))
    stated = read(path)
    own: dict[str, object] = {}
    if str(preset) in presets():
        stated = _for_task(path, stated, values)
    else:
        stated, own = _on_its_preset(path, stated, values)
    settings = _changed(stated, values)
    if values.keys().isdisjoint(CHOICE):  # else the file's own are for another planner
        values = own | values
    refuse_unused(settings, values)
    if _of_a_run(path):
        require(imported(settings), str(path))
    return settings


def imported(settings: Settings) -> Json:
    """Return, as dotted keys, the settings that may name code which training with them imports."""
    values = flatten(settings)
    return {
        key: value
        for key, value in values.items()
        if key != "env.id" or settings.data.folder is None
    }


def _of_a_run(path: Path) -> bool:
    """Return whether this settings file is a run's: then its maker's word, not the user's."""
    return any(
        (path.parent / name).exists() for name in ("run.json", "checkpoints", "metrics.jsonl")
    )


def override(settings: Settings, overrides: Sequence[str]) -> Settings:
    """Return other settings, changed by `key=value` overrides; see `load` for what is raised."""
    values = parse_overrides(overrides)
    changed = _changed(flatten(settings), values)
    refuse_unused(changed, values)
    return changed


def with_planner(settings: Settings, overrides: Sequence[str]) -> Settings:
    """Return the settings of a trained model with other settings of how it acts, those of ACTING.

    Raises:
        PlanetError: another setting is among them; or see `load`.
    """
    values = parse_overrides(overrides)
    for key, value in values.items():
        if key in flatten(settings) and not key.startswith(ACTING):
            fix = "set planner.precision" if key == "train.precision" else "train another run"
            raise PlanetError(
                f"-s {key}={value}: only planner.…, rssm.filter_by and rssm.plan_by may change "
                f"now; {fix}"
            )
    changed = override(settings, overrides)
    if line := unused(changed.planner, values):  # the actor's too: it acts now, nothing later
        raise PlanetError(line)
    return changed


def refuse_unused(settings: Settings, given: Mapping[str, object]) -> None:
    """Refuse settings that were `given` and that the chosen planner does not use.

    An actor's run keeps those of a search: another planner may act with its model later.

    Raises:
        PlanetError: there is one.
    """
    if settings.planner.name != "actor" and (line := unused(settings.planner, given)):
        raise PlanetError(line)


def parse_overrides(overrides: Sequence[str]) -> Json:
    """Return the values of `key=value` texts by key, later ones winning; any key is taken.

    Raises:
        PlanetError: a text of another form, or a value that is not YAML.
    """
    return _spelled_out(dict(parse(text) for text in overrides))


def resolve(values: Mapping[str, object]) -> Settings:
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
            f"settings of format {quoted(newer)}: this version reads up to {FORMAT}; "
            "upgrade planet_rssm"
        )
    tree: Json = {}
    for key, value in values.items():
        if key not in known:
            shown = quoted(key)
            close = nearest(key if isinstance(key, str) else shown, [*known, SHORT])
            raise PlanetError(f"unknown setting {shown}{close}")
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise PlanetError(_one_line(error)) from None


def sized(size: object) -> dict[str, object]:
    """Return the settings that a size stands for; nothing for none, or for one that is refused."""
    if not isinstance(size, str) or size not in SIZES:
        return {}
    deter, hidden, classes, depth, units = SIZES[size]
    return {
        "rssm.deter": deter,
        "rssm.hidden": hidden,
        "rssm.classes": classes,
        "model.depth": depth,
        "model.vector_units": units,
        "model.reward_units": units,
        "model.continue_units": units,
        "behavior.units": units,
    }


def _for_task(
    path: Path, preset: dict[str, object], given: Mapping[str, object]
) -> dict[str, object]:
    """Return a preset, or a copy of one, as it is for the task `given`, or for its own."""
    by_task = preset.pop(TASKS, {})
    if not isinstance(by_task, dict) or not all(
        isinstance(changes, dict) for changes in by_task.values()
    ):
        raise PlanetError(
            f"settings file {path}: {TASKS} = {quoted(by_task)}: must be lines of "
            "`dmc/walker-walk: {train.updates: 400}`"
        )
    task = given.get("env.id", preset.get("env.id"))
    for name, changes in by_task.items():
        if isinstance(task, str) and same_task(str(name), task):
            return _merged(preset, changes)
    return preset


def _on_its_preset(
    path: Path, values: dict[str, object], given: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return a user's settings file on the preset that it names, and what the user wrote in it.

    `given` wins over the file: it may name another task.
    """
    if not values:
        raise PlanetError(
            f"settings file {path}: states nothing; write a preset as its first line, such as "
            "`preset: quickstart`, and what differs below it"
        )
    if BASE in values:
        name = values.pop(BASE)
        shipped = presets()
        if not isinstance(name, str) or name not in shipped:
            raise PlanetError(
                f"settings file {path}: {BASE}: {quoted(name)} is none{nearest(str(name), shipped)}"
            )
        own = _spelled_out(values)
        return _merged(_for_task(path, read(shipped[name]), {**own, **given}), own), own
    values = _for_task(path, values, given)  # it may be a copy of a preset
    open_keys = [key for key in flatten(Settings()) if key not in values]
    complete = "format" in values and len(open_keys) <= len(values)  # `planet config` wrote it
    if open_keys and not complete:
        _log.warning(
            "settings file %s: names no preset, so the %d settings that it does not state are "
            "those of planet, such as env.id and train.env_steps; for others write one as its "
            "first line, such as `preset: quickstart`",
            path,
            len(open_keys),
        )
    return values, {} if "format" in values else _spelled_out(values)


def _changed(before: Mapping[str, object], values: Mapping[str, object]) -> Settings:
    """Build settings from those `before`, changed by `values`."""
    return resolve(_merged(before, values))


def _merged(before: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    """Return the settings `before`, changed by `values`: what a new name stands for wins."""
    new = _stood_for(values)
    if "behavior.name" in values and "model.size" not in values:
        # the size that there is still sets the width
        width = sized(before.get("model.size")).get("behavior.units")
        new |= {} if width is None else {"behavior.units": width}
    named = values.get("env.id")
    if (
        isinstance(named, str)
        and not is_dm_control(named)
        and before.get("env.renderer") == "raycast"
    ):
        new["env.renderer"] = "auto"  # only tasks of dm_control are ray cast
    return {**before, **new, **values, **_opened(before, values)}


def _opened(before: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    """Return the mapping OPEN with what `values` change in it."""
    old, new = before.get(OPEN), values.get(OPEN)
    return {OPEN: {**old, **new}} if isinstance(old, dict) and isinstance(new, dict) else {}


def _stood_for(values: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that the names of a recipe and of a size stand for."""
    name = values.get("behavior.name")
    recipe: dict[str, object] = {}
    if isinstance(name, str) and name in RECIPES:
        recipe = flatten(BehaviorSettings()) | RECIPES[name]
    own = {f"behavior.{key}": value for key, value in recipe.items()}
    return own | sized(values.get("model.size"))


def _spelled_out(values: Mapping[str, object]) -> dict[str, object]:
    """Return `values` with the short key written out, and the entries of OPEN in one mapping."""
    long = {f"{SHORT}.name" if key == SHORT else key: value for key, value in values.items()}
    entries = {
        key: long.pop(key)
        for key in list(long)
        if isinstance(key, str) and key.startswith(f"{OPEN}.")
    }
    if not entries:
        return long
    named = {key.removeprefix(f"{OPEN}."): value for key, value in entries.items()}
    together = long.get(OPEN)
    return long | {OPEN: {**together, **named} if isinstance(together, dict) else named}


def flatten(settings: BaseModel) -> Json:
    """Return the settings as dotted keys, the form that files and `-s` use."""
    flat: Json = {}
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


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":  # a cross-check of ours, already a complete line
        return str(first["ctx"]["error"])
    place, reasons = first["loc"], [first["msg"]]
    if str(place[-1]).startswith("literal["):  # one of several kinds, with an error for each
        place = place[:-1]
        reasons = [one["msg"] for one in error.errors() if one["loc"][: len(place)] == place]
    key = ".".join(str(part) for part in place)
    words = [_in_our_words(reason) for reason in reasons]
    words[1:] = [word.removeprefix("must be ") for word in words[1:]]
    return f"{key} = {quoted(first['input'])}: {' or '.join(words)}"


def _in_our_words(reason: str) -> str:
    """Return pydantic's reason as our own lines are written: what the value must be."""
    for theirs, ours in _WORDS.items():
        reason = reason.replace(theirs, ours)
    return f"{reason[0].lower()}{reason[1:]}"
