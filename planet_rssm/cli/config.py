"""`planet config`."""

import json

import click

from planet_rssm import config as settings_of
from planet_rssm.cli import complete, options


@click.command("config", epilog=f"Presets: {', '.join(settings_of.presets())}.")
@click.argument("preset", shell_complete=complete.preset)
@options.settings(complete.any_setting, "Change a setting; may be repeated.")
@options.allow_code
@click.option("--summary", is_flag=True, help="Print the number of parameters by part, as JSON.")
@options.as_json("Print one JSON object; with --summary it is one anyway.")
def verb(preset: str, overrides: tuple[str, ...], summary: bool, as_json: bool) -> None:
    """Show the settings that PRESET, a preset or a settings file, resolves to.

    The output is itself a settings file: planet config quickstart > mine.yaml; planet train
    mine.yaml. A file with `preset: quickstart` as its first line states only what it changes.
    """
    settings = settings_of.load(preset, overrides)
    if not summary:
        flat = settings_of.flatten(settings)
        click.echo(
            json.dumps({"preset": preset, "settings": flat})
            if as_json
            else settings_of.dump(settings).rstrip()
        )
        return
    from planet_rssm.envs.pool import EnvPool  # only here: `planet config` itself stays quick
    from planet_rssm.training.sizes import parameter_counts

    with EnvPool(settings.env.model_copy(update={"renderer": "none"}), 1) as pool:
        counts = parameter_counts(settings, pool.spec)
    click.echo(json.dumps({"preset": preset, "parameters": counts}))
