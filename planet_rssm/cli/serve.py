"""`planet serve`."""

import ipaddress
import json
import os
from pathlib import Path
from typing import Any

import click

from planet_rssm.base.errors import PlanetError
from planet_rssm.base.files import read_regular
from planet_rssm.cli import complete, options

TOKEN = "PLANET_TOKEN"
SHORTEST = 16  # characters of a token
MOST_TOKEN = 4096  # bytes of its file


@click.command("serve")
@click.argument("run", shell_complete=complete.run, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=7070,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for a free one.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help=f"File with the token that clients must say; else the variable {TOKEN}.",
)
@click.option(
    "--batch",
    default=64,
    show_default=True,
    type=options.count(),
    help="Robots that are planned for at once, at most.",
)
@click.option(
    "--gather-ms",
    default=5.0,
    show_default=True,
    type=options.Number(0, 1000),
    help="How long the first request of a batch waits for others.",
)
@click.option(
    "--queue",
    default=128,
    show_default=True,
    type=options.count(),
    help="Requests that wait, at most; another one is refused.",
)
@click.option(
    "--sessions",
    default=256,
    show_default=True,
    type=options.count(),
    help="Robots at once, at most.",
)
@options.planner
@options.settings(complete.acting_setting, "Change planner.… or rssm.plan_by.")
@options.checkpoint()
@options.device()
@options.allow_code
@options.as_json("Print the address as one JSON object on standard output.")
def verb(
    run: Path,
    host: str,
    port: int,
    token_file: Path | None,
    planner: str | None,
    overrides: tuple[str, ...],
    checkpoint: str,
    device: str,
    as_json: bool,
    **limits: Any,  # noqa: ANN401
) -> None:
    """Plan with RUN for many robots or environments at once; see docs/scale.md.

    Each has a session with a belief of its own. Requests that come within a few milliseconds are
    planned together. A robot's program asks by planet_rssm.control.RemoteAgent, which a ControlLoop
    takes in place of a local agent.

    \b
    For example
      planet serve pretrained:cartpole-swingup --port 7070
    """  # noqa: D301 (click reads the backspace)
    token = _token(token_file)
    if not _is_loopback(host) and token is None:
        raise PlanetError(
            f"--host {host}: other machines can reach that, and there is no token; give "
            f"--token-file FILE or set {TOKEN}, at least {SHORTEST} characters"
        )
    from planet_rssm.agent import Agent
    from planet_rssm.serve import Service
    from planet_rssm.serve.server import WebServer

    changed = options.with_planner(overrides, planner)
    agent = Agent.load(run, checkpoint, device, overrides=changed)
    service = Service(agent, **limits)
    try:
        server = WebServer(service, host, port, token=token)
        name = f"[{host}]" if ":" in host else host
        where = f"http://{name}:{server.port}"
        click.echo(f"planning with {run} at {where}; Ctrl-C ends it", err=True)
        if as_json:
            click.echo(json.dumps({"url": where, "run": str(run)}))
        server.run()
    finally:
        service.close()


def _token(path: Path | None) -> str | None:
    """Return the token that clients must say; None without one.

    Raises:
        PlanetError: it cannot be read, or is too short to be one.
    """
    if path is None:
        token, where = os.environ.get(TOKEN), TOKEN
    else:
        where = f"--token-file {path}"
        try:
            token = read_regular(path, MOST_TOKEN).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise PlanetError(f"{where}: not readable ({reason}); give another") from None
    if token is None:
        return None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise PlanetError(
            f"{where}: a token has at least {SHORTEST} letters, digits or signs and no space; "
            "`openssl rand -hex 16` makes one"
        )
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
