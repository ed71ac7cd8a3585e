"""Options that several verbs share."""

import click

from planet_rssm.base.trust import allowed


def _allow(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        ctx.with_resource(allowed())  # until the verb ends


allow_code = click.option(
    "--allow-code", is_flag=True, expose_value=False, callback=_allow,
    help="Import what somebody else's run or data names as module:Class; look at it first.",
)  # fmt: skip
