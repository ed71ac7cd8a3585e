"""What a shell offers for presets, runs, tasks and settings.

Nothing here imports torch: it is called at every TAB.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from planet_rssm.config import ACTING, Settings, flatten, presets

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_BUNDLED = Path(__file__).parents[1] / "pretrained"


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def preset(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer presets, and settings files where none begins so."""
    return _beginning(presets(), incomplete) or [CompletionItem(incomplete, type="file")]


def run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the models of the package, and folders where none begins so."""
    names = sorted(f"pretrained:{path.name}" for path in _BUNDLED.iterdir() if path.is_dir())
    offered = _beginning(names, incomplete) if incomplete else []
    return offered or [CompletionItem(incomplete, type="dir")]


def task(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer dm_control's tasks, with `dmc/` and without."""
    from planet_rssm.envs.registry import task_ids

    return _beginning(task_ids(), incomplete) or _beginning(
        (name[4:] for name in task_ids()), incomplete
    )


def settings(prefixes: tuple[str, ...] = ("",)) -> Completer:
    """Return a function that offers, as `key=`, all settings or those that begin with a prefix."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        keys = [key for key in flatten(Settings()) if key != "format" and key.startswith(prefixes)]
        return _beginning((f"{key}=" for key in keys), incomplete)

    return offer


any_setting = settings()
acting_setting = settings(ACTING)
env_setting = settings(("env.",))
