"""What to write in place of a word that the command line does not know."""

import re

import click

from planet_rssm.config import Settings, flatten, nearest

# Options that other programs have, by what does the same here.
ELSEWHERE = {
    "config": "a settings file takes the place of PRESET: planet train mine.yaml",
    "wandb": "metrics are in RUN/metrics.jsonl, and as TensorBoard events, for `wandb sync`, in "
    "RUN/tensorboard",
    "tensorboard": "TensorBoard events are in RUN/tensorboard wherever the package tensorboard is "
    "installed",
    "logdir": "a run is kept where --run-dir says",
    "env": "the environment is a setting: -s env.id=…",
    "task": "the environment is a setting: -s env.id=…",
    "steps": "the budget is a setting: -s train.env_steps=…",
    "gpu": "the device is --device cuda",
    "cuda": "the device is --device cuda",
}
SAME = {
    "configs": "config",
    "config-file": "config",
    "log-dir": "logdir",
    "output-dir": "logdir",
    "env-id": "env",
}
FEW = 3  # settings of one name that are shown


def hint(error: click.ClickException) -> str:
    """Return click's line for a mistake, and what to write instead where that is known."""
    line = error.format_message()
    command = error.ctx.command if isinstance(error, click.UsageError) and error.ctx else None
    if isinstance(command, click.Group) and (given := re.match(r"No such command '(.*)'\.$", line)):
        known = command.list_commands(error.ctx)  # type: ignore[attr-defined]  # it has one
        # where one is near click has said it
        return line.rstrip(".") + nearest(given[1], known)
    if command is None or not any("-s" in option.opts for option in command.params):
        return line
    if given := re.search(r"unexpected extra arguments? \((?:.* )?([\w.]+=[^ )]*)", line):
        return f"{line.rstrip('.')}; a setting is written with -s: -s {given[1]}"
    if isinstance(error, click.NoSuchOption):
        name = error.option_name.lstrip("-")
        if instead := ELSEWHERE.get(SAME.get(name, name)) or _setting(name):
            return f"no such option {error.option_name!r}; {instead}"
    return line


def _setting(name: str) -> str | None:
    """Return how the setting of that name, or the few that end in it, is written."""
    wanted = name.replace("-", "_")
    keys = [key for key in flatten(Settings()) if wanted in (key, key.rpartition(".")[2])]
    return (
        f"a setting is written {' or '.join(f'-s {key}=…' for key in keys)}"
        if 0 < len(keys) <= FEW
        else None
    )
