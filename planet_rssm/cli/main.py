"""The command `planet`.

Verbs are loaded when called, so that `planet --help` imports neither torch nor mujoco.
"""

import contextlib
import errno
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

from planet_rssm.base.descriptors import hold_standard
from planet_rssm.base.errors import PlanetError
from planet_rssm.base.malloc import keep_memory
from planet_rssm.base.text import escape_controls

# verb: what it does, for `planet --help`; the module of the same name holds the command, called
# `verb`
VERBS = {
    "train": "Learn a world model of an environment from pixels, planning as it goes.",
    "watch": "Watch a run train, in the terminal: curves, rates, time left, the last frame.",
    "collect": "Write a set of episodes, for learning offline.",
    "data": "Import sets of episodes of other programs, for learning offline.",
    "minari": "Import and export Minari datasets, for learning offline.",
    "plan": "Act with a trained model: return, baselines, latency, video.",
    "export": "Write a trained agent as one file that runs without planet: ONNX or PyTorch's.",
    "push": "Send a trained run to the Hugging Face Hub, with a model card.",
    "eval": "Measure trained runs by one protocol, with intervals, beside the published scores.",
    "compare": "Say which way to decide returns the most in the same milliseconds.",
    "report": "Write one HTML file about runs: curves, scores, films, settings.",
    "dream": "Measure what a trained model imagines beside the truth.",
    "diagnose": "Say where a run's return is lost: in the model, the planner or the filter.",
    "sweep": "Train presets x tasks x seeds x settings, here, by Ray or on SLURM.",
    "serve": "Plan for many robots at once: a service that their control loops ask.",
    "bench": "Measure this machine's speed.",
    "config": "Show the resolved settings of a preset.",
    "envs": "List the environments that can be run here.",
    "doctor": "Check what works on this machine, and how to fix the rest.",
}


CLOSED = "whoever read the output has closed it; what was committed by then is kept"


class _ClosedError(click.ClickException):
    """The output was closed."""

    exit_code = 141  # as a shell counts SIGPIPE


class LazyGroup(click.Group):
    """A group whose verbs are modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order they are used."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        if cmd_name not in VERBS:
            if ctx.resilient_parsing:  # a shell completes a line with a mistake in it
                return None
            from planet_rssm.config import nearest

            raise click.UsageError(f"no verb {cmd_name!r}{nearest(cmd_name, VERBS)}", ctx)
        return importlib.import_module(f"planet_rssm.cli.{cmd_name}").verb

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Call the verb; a closed output ends it with a line, which click and rich lack."""
        try:
            done = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()  # here a full or closed output can still be reported
            return done
        except (BrokenPipeError, SystemExit) as error:
            if not isinstance(error, BrokenPipeError) and not isinstance(
                error.__context__, BrokenPipeError
            ):
                raise
        _drop_output()
        raise _ClosedError(CLOSED)

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
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(_Plain("%(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[lines])
    if not debug:
        for name in ("absl", "OpenGL", "matplotlib", "PIL", "libav"):
            logging.getLogger(name).setLevel(logging.WARNING)


def main(args: list[str] | None = None) -> None:
    """Run the command line; bad input ends with a single line and exit code 1.

    A traceback is shown only with --debug.
    """
    hold_standard()  # before anything is opened
    words = (sys.argv[1:] if args is None else args) or ["--help"]  # bare, click would fail
    # OpenMP threads spin for milliseconds while they wait. Median ms of a quickstart
    # update/decision on two cores: default 54/46, OMP_WAIT_POLICY=PASSIVE 80/90,
    # GOMP_SPINCOUNT=1000 56/37. Update beside one busy process: default 617 to 1151,
    # GOMP_SPINCOUNT=1000 157. Read when torch is imported, which is later; the user's own value
    # wins.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_memory()
    # elsewhere Python allows no handlers
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if main_thread else None
    try:
        _run(words)
    except click.exceptions.NoArgsIsHelpError as error:  # `planet data` alone
        click.echo(error.format_message())
    except click.ClickException as error:
        from planet_rssm.cli.hints import hint  # reads all settings: not for a line that is right

        _end(hint(error), error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        _end("interrupted", 130)
    except _TerminatedError:
        _end("terminated", 143)
    except Exception as error:
        if "--debug" in words:
            raise
        _end(_line(error), 1)
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before)


def _run(words: list[str]) -> None:
    _check_words(words)
    planet.main(words, prog_name=_called(), standalone_mode=False)


class _TerminatedError(BaseException):
    """SIGTERM came: files under way are removed and environments ended, as with Ctrl-C."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def _called() -> str:
    """Return which of its two names the command was called by: completion is kept under it."""
    return "planet-rssm" if Path(sys.argv[0]).name == "planet-rssm" else "planet"


def _check_words(words: list[str]) -> None:
    """Refuse names that would steer the terminal they are printed on, and those that are empty.

    An empty one comes of a shell's variable that is not set, and as a path it would be the current
    folder.

    Raises:
        PlanetError: a word holds a control character, or is empty.
    """
    for before, word in zip(["planet", *words], words, strict=False):
        if not word or (word.startswith("--") and word.endswith("=")):
            where = word or f"'' after {escape_controls(before)}"
            raise PlanetError(
                f"{where}: an empty word; give a name there, or leave it out. A variable of the "
                "shell that is not set gives an empty one"
            )
        if escape_controls(word) != word:
            raise PlanetError(f"{escape_controls(word)}: holds a control character; rename it")


class _Plain(logging.Formatter):
    """A log line that is only read, whatever names are in it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return escape_controls(super().format(record))


def _drop_output() -> None:
    """Let what is still buffered go nowhere: at the end Python would try again and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, PlanetError):
        return text
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            f"{error.strerror}: this system lets a process have too few; "
            "raise that, as with ulimit -n 1024"
        )
    if isinstance(error, OSError) and error.filename and error.strerror:
        # a name too long, a folder that is a file
        name = " ".join(str(error.filename).split())
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{name}: {error.strerror}; free some, or give another path"
        return f"{name}: {error.strerror}; give another path, or fix this one"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _drop_output()
        return f"output: {error.strerror}; free some, or send it elsewhere"
    if isinstance(error, RuntimeError) and text.startswith("Symlink loop"):  # until Python 3.13
        return f"{text}; give another path, or remove the link"
    if (
        isinstance(error, MemoryError)
        or "DefaultCPUAllocator" in text
        or "CUDA out of memory" in text
    ):
        return (
            "memory: used up; free some, or lower train.batch_size or planner.candidates with -s, "
            "--envs, or the model's widths"
        )
    return f"{type(error).__name__}: {text} (unexpected: planet --debug shows where)"


def _end(line: str, code: int) -> Any:  # noqa: ANN401
    with contextlib.suppress(OSError, ValueError):  # closed or full as well
        line = " ".join(part.strip() for part in line.splitlines())  # click lists choices in lines
        click.echo(f"planet: {escape_controls(line)}", err=True)
    sys.exit(code)
