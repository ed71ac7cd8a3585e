"""What a child process of ours does about its parent: read its commands, and die with it.

`python -m planet_rssm.base.parent LIFE WORDS…` is `planet WORDS…`, killed when the pipe of the
descriptor LIFE closes at its other end. It must lead a process group of its own.
"""

import fcntl
import os
import runpy
import select
import signal
import sys
import threading


def own_commands() -> int:
    """Return a descriptor of standard input, and leave an empty one in its place.

    What a library or an environment reads from there is then none of the commands.
    """
    commands = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return commands


def die_with_parent(life: int) -> None:
    """Have the processes of this one's group killed when the pipe's other end closes.

    On Linux by the system, which waits neither for a call to return nor for Python's lock;
    elsewhere by a thread.
    """
    try:
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    except (AttributeError, OSError):
        threading.Thread(target=_kill_group_after, args=(life, None), daemon=True).start()
    else:
        _kill_group_after(life, 0)  # it may have died before


def _kill_group_after(life: int, milliseconds: int | None) -> None:
    """Kill the group if the pipe's other end closes within this time; None: whenever."""
    poll = select.poll()
    poll.register(life, 0)  # of closing alone
    if poll.poll(milliseconds):
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    life = int(sys.argv.pop(1))
    os.set_inheritable(life, False)
    die_with_parent(life)
    runpy.run_module("planet_rssm", run_name="__main__", alter_sys=True)
