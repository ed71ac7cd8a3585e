"""The command `planet`: verbs are loaded when called, so that `planet --help` imports neither torch nor mujoco."""

import importlib
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import click

from planet_rssm.descriptors import hold_standard
from planet_rssm.errors import PlanetError
from planet_rssm.memory import keep_memory

# verb: what it does, for `planet --help`; the module of the same name holds the command, called `verb`
VERBS = {
    "train": "Learn a world model of an environment from pixels, planning as it goes.",
    "collect": "Write a set of episodes, for learning offline.",
    "minari": "Import and export Minari datasets, for learning offline.",
    "plan": "Act with a trained model: return, baselines, latency, video.",
    "eval": "Measure trained runs by one protocol: mean, IQM, intervals, beside the published scores.",
    "dream": "Measure what a trained model imagines beside the truth.",
    "diagnose": "Say where a run's return is lost: in the model, the planner or the filter.",
    "bench": "Measure this machine's speed.",
    "config": "Show the resolved settings of a preset.",
    "envs": "List the environments that can be run here.",
    "doctor": "Check what works on this machine, and how to mend the rest.",
}


class LazyGroup(click.Group):
    """A group whose verbs are modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order they are used."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in VERBS:
            if ctx.resilient_parsing:  # a shell completes a line with a mistake in it: nothing to offer
                return None
            from planet_rssm.config import nearest

            raise click.UsageError(f"no verb {cmd_name!r}{nearest(cmd_name, VERBS)}", ctx)
        return importlib.import_module(f"planet_rssm.cli.{cmd_name}").verb

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.version_option(package_name="planet_rssm")
def planet(debug: bool) -> None:
    """Learn a world model from pixels and plan in it (PlaNet).

    Example: planet train quickstart
    """
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, format="%(message)s", stream=sys.stderr)
    if not debug:
        for name in ("absl", "OpenGL", "matplotlib", "PIL", "libav"):
            logging.getLogger(name).setLevel(logging.WARNING)


def main(args: list[str] | None = None) -> None:
    """Run the command line; bad input ends in one line and exit code 1, a traceback only with --debug."""
    hold_standard()  # before anything is opened
    words = (sys.argv[1:] if args is None else args) or ["--help"]  # bare, click's help would be an error
    # OpenMP threads spin for milliseconds while they wait. Median ms of a quickstart update/decision on two cores:
    # default 54/46, OMP_WAIT_POLICY=PASSIVE 80/90, GOMP_SPINCOUNT=1000 56/37. Update beside one busy process: default
    # 617 to 1151, GOMP_SPINCOUNT=1000 157. Read when torch is imported, which is later; the user's own value wins.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_memory()
    main_thread = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
    before = signal.signal(signal.SIGTERM, _terminate) if main_thread else None
    try:
        planet.main(words, prog_name=_called(), standalone_mode=False)
    except click.exceptions.Abort:
        _end("interrupted", 130)
    except click.ClickException as error:
        from planet_rssm.cli.hints import hint  # reads all settings: not for a line that is right

        _end(hint(error), error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except _TerminatedError:
        _end("terminated", 143)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        if "--debug" in words:
            raise
        _end(_line(error), 1)
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)


class _TerminatedError(BaseException):
    """SIGTERM came: files under way are removed and environments ended, as with Ctrl-C."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def _called() -> str:
    """Return which of its two names the command was called by; a shell's completion is kept under it."""
    return "planet-rssm" if Path(sys.argv[0]).name == "planet-rssm" else "planet"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, PlanetError):
        return text
    if isinstance(error, OSError) and error.filename and error.strerror:  # a name too long, a folder that is a file
        return f"{' '.join(str(error.filename).split())}: {error.strerror}; give another path, or mend this one"
    return f"{type(error).__name__}: {text} (unexpected: planet --debug shows where)"


def _end(line: str, code: int) -> Any:  # noqa: ANN401
    click.echo(f"planet: {' '.join(line.splitlines())}", err=True)
    sys.exit(code)
