"""`planet doctor`: what works on this machine, how fast, and how to fix the rest.

It takes twenty seconds, if nothing hangs. No GL and no simulator is loaded into this process: torch
is, and Mesa's software GL and torch crash each other.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from planet_rssm.base.json_types import Json
from planet_rssm.cli import mesa, options
from planet_rssm.cli.installed import Check, extra, packages, python_version
from planet_rssm.cli.tables import print_text
from planet_rssm.envs import gl

EXTRAS = ("matplotlib", "av", "tensorboard")
FRAMES_TIMEOUT = 60.0  # seconds, as for gl.probe: a busy machine, or a cold disk, is no fault
DISK_SECONDS = 0.5
ROOMY = 5.0  # GB; 1 M env_steps of 64x64 pixels take 3 at action repeat 4
_BLOCK, _BLOCKS = 1 << 22, 16  # bytes between two fsyncs, and how often at most
_FRAMES = """
import sys, time
from planet_rssm.config import EnvSettings
from planet_rssm.envs.dmc import DMControlEnv
env = DMControlEnv(EnvSettings(id="dmc/cheetah-run", renderer=sys.argv[1]))
env.reset(seed=0)
times = []
for _ in range(50):
    begin = time.perf_counter()
    env.render_frame(64)
    times.append(time.perf_counter() - begin)
print(1000 * sorted(times)[25])
env.close()
"""
_GL_FIX = {
    "egl": "planet doctor --install-gl (no root needed), or apt install libegl1 libgl1",
    "osmesa": "planet doctor --install-gl (no root needed), or apt install libosmesa6",
    "glfw": "needs a display (DISPLAY); or use env.renderer=raycast, which needs no GL",
}
_DRIVER_FIX = (
    "apt install libegl1 and the driver's libnvidia-gl; "
    "in a container, set NVIDIA_DRIVER_CAPABILITIES=all"
)

_log = logging.getLogger("planet_rssm")


@click.command("doctor")
@options.as_json()
@click.option(
    "--install-gl",
    is_flag=True,
    help="First unpack the distribution's Mesa, if no GL renders; no root.",
)
def verb(as_json: bool, install_gl: bool) -> None:
    """Check what works on this machine, measure how fast it is, and say how to fix the rest.

    The exit code is 0 if everything needed works; GL, a compiler and a GPU are not needed.

    \b
    For example
      planet doctor
      planet doctor --install-gl
      planet doctor --json > doctor.json
    """  # noqa: D301 (click reads the backspace)
    if install_gl:
        with Console(stderr=True).status(
            "looking for a GL that renders, else fetching Mesa (50 MB)"
        ):
            line = mesa.install()
        click.echo(line, err=True)
    with Console(stderr=True).status("looking around"):
        rows = examine()
    ok = all(row["ok"] for row in rows if row["needed"])
    if as_json:
        click.echo(json.dumps({"ok": ok, "checks": rows}))
    else:
        _print(rows, Console(emoji=False))
    if not ok:
        sys.exit(1)


def examine() -> list[Json]:
    """Run every check; return {"name", "ok", "value", "mend", "needed"} of each, never raise."""
    kinds = ((NEEDED, True), (OPTIONAL, False))
    checks = [
        (check, needed) for group, needed in kinds for look in group for check in _looked(look)
    ]
    return [asdict(check) | {"needed": needed} for check, needed in checks]


def _looked(look: Callable[[], Iterable[Check]]) -> list[Check]:
    """Return the findings of `look`; what it raises is a finding too."""
    try:
        return list(look())
    except Exception as error:
        _log.debug("planet doctor: %s", look.__name__, exc_info=True)
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        name = look.__name__.replace("_", " ")
        return [Check(name, False, line, "planet --debug doctor shows where it failed")]


def gemm() -> list[Check]:
    """Measure matrix products on the device that training would use."""
    # torch: here, not above, so that `planet doctor --help` stays quick and a broken one is a
    # finding
    from planet_rssm.base.device import gemm_rate, resolve_device
    from planet_rssm.precision import summary

    device = resolve_device("auto")
    rates = {name: gemm_rate(name, device) for name in ("float32", "bfloat16")}
    checks = [Check(f"gemm {name} (GFLOP/s)", True, round(rate, 1)) for name, rate in rates.items()]
    auto = summary(device)
    times = auto["bfloat16_time"]
    why = (
        "no bfloat16 here"
        if times is None
        else f"bfloat16 products take {times:.2g} times as long as float32's"
    )
    return [*checks, Check("precision auto is", True, f"{auto['auto_precision']}: {why}")]


def raycast() -> list[Check]:
    """Measure ray-cast frames in a child process; it shows that the simulator works, too."""
    return [_frame_rate("raycast")]


def _frame_rate(renderer: str) -> Check:
    name = f"{renderer} 64x64 (ms)"
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    ours = gl.variables("disable" if renderer == "raycast" else renderer) | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
    }
    environment = os.environ | ours
    environment.pop("PYOPENGL_PLATFORM", None)  # mujoco refuses one that disagrees with MUJOCO_GL
    command = [sys.executable, "-P", "-c", _FRAMES, renderer]
    try:
        child = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=FRAMES_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check(
            name,
            False,
            f"no frame within {FRAMES_TIMEOUT:g} s",
            "try again on a machine that is less busy",
        )
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        return Check(name, False, last, "fix mujoco and dm-control, see their rows")
    return Check(name, True, round(float(child.stdout.split()[-1]), 2))


def disk() -> list[Check]:
    """Measure writing to the current folder, where runs go, with an fsync after every 4 MiB."""
    name = "disk write and fsync (MB/s)"
    block = os.urandom(_BLOCK)
    blocks = 0
    begin = time.perf_counter()
    try:
        with tempfile.TemporaryFile(dir=".") as file:
            while blocks < _BLOCKS and (not blocks or time.perf_counter() - begin < DISK_SECONDS):
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
                blocks += 1
            seconds = time.perf_counter() - begin
    except OSError as error:
        fix = "go to a folder with space that you may write to, or give --run-dir"
        return [Check(name, False, f"{error.strerror} in {Path.cwd()}", fix)]
    return [Check(name, True, round(blocks * _BLOCK / seconds / 1e6, 1))]


def disk_space() -> list[Check]:
    """Check that a long run fits on the disk of the current folder."""
    free = round(shutil.disk_usage(".").free / 1e9, 1)
    fix = f"a long run needs {ROOMY:g} GB: free some, or give --run-dir on another disk"
    return [Check("disk free (GB)", free >= ROOMY, free, "" if free >= ROOMY else fix)]


def device() -> list[Check]:
    """Name the device that `device: auto` means here."""
    import torch

    from planet_rssm.base.device import processor

    if torch.cuda.is_available():
        return [Check("device", True, f"cuda: {torch.cuda.get_device_name()}")]
    value = f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} of them used, {processor()}"
    if not has_nvidia():
        return [Check("device", True, value)]
    built = torch.version.cuda is not None
    fix = (
        "update the NVIDIA driver"
        if built
        else "this torch was built without CUDA: install one that has it"
    )
    return [Check("device", False, f"{value}; the NVIDIA GPU is not", fix)]


def has_nvidia() -> bool:
    """Return whether the machine has an NVIDIA GPU, whether or not torch can use it."""
    torch = sys.modules.get("torch")  # not there if it is broken: that is another check's finding
    usable = torch is not None and torch.cuda.is_available()  # WSL has no such files
    return usable or any(Path("/dev").glob("nvidia[0-9]*"))


def gl_renderers() -> list[Check]:
    """Probe the GL backends at once, in child processes; measure the first that renders."""
    with ThreadPoolExecutor(len(gl.BACKENDS)) as pool:
        probes = list(pool.map(gl.probe, gl.BACKENDS))
    working = [probe.backend for probe in probes if probe.ok]
    auto = next(
        (probe.backend for probe in probes if probe.hardware), "raycast, as no GPU draws here"
    )
    return [
        *map(_gl_check, probes),
        *map(_frame_rate, working[:1]),
        Check("env.renderer=auto is", True, auto),
    ]


def _gl_check(probe: gl.GlProbe) -> Check:
    name = f"gl {probe.backend}"
    # osmesa is software by its nature
    idle = probe.backend != "osmesa" and not probe.hardware and has_nvidia()
    if probe.ok and not idle:
        return Check(name, True, probe.renderer)
    if probe.ok:
        return Check(name, False, f"{probe.renderer}: software, beside an NVIDIA GPU", _DRIVER_FIX)
    by_driver = idle and probe.backend == "egl"
    return Check(name, False, probe.error, _DRIVER_FIX if by_driver else _GL_FIX[probe.backend])


def compiler() -> list[Check]:
    """Check the C++ compiler that torch.compile would call."""
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    try:
        answer = subprocess.run(
            [name, "--version"], capture_output=True, text=True, check=True, timeout=5
        ).stdout
    except (OSError, subprocess.SubprocessError):
        fix = "for torch.compile: apt install g++, or export CXX=the C++ compiler that you have"
        return [Check("c++ compiler", False, f"{name} does not run", fix)]
    return [Check("c++ compiler", True, (answer.splitlines() or [name])[0])]


def extras() -> list[Check]:
    """Check what curves, videos and event files need."""
    return [extra(name) for name in EXTRAS]


def command() -> list[Check]:
    """Check that `planet` on the PATH is this one."""
    script = shutil.which("planet")
    if script is None:
        return [Check("planet on PATH", True, "none; python -m planet_rssm is the same command")]
    fix = (
        "another program of that name comes first: use planet-rssm, the same command, "
        "or python -m planet_rssm"
    )
    own = _is_own(Path(script))
    return [Check("planet on PATH", own, script, "" if own else fix)]


def _is_own(script: Path) -> bool:
    """Return whether it belongs to the Python that runs this, or is the checkout's script."""
    if script.resolve() == Path(__file__).resolve().parents[2] / "scripts" / "planet":
        return True
    user = sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
    folders = (sysconfig.get_path("scripts"), user, Path(sys.executable).parent)
    ours = {Path(folder).resolve() for folder in folders}
    beside = not ours.isdisjoint({script.parent.resolve(), script.resolve().parent})
    # /usr/bin holds other people's programs too
    return beside and b"planet_rssm" in script.read_bytes()


NEEDED = (python_version, packages, gemm, raycast, disk)
OPTIONAL = (device, gl_renderers, compiler, disk_space, extras, command)


def _print(rows: list[Json], console: Console) -> None:
    table = Table("check", "", "value")
    for row in rows:
        state = "[green]ok" if row["ok"] else "[bold red]fails" if row["needed"] else "[yellow]note"
        table.add_row(
            escape(row["name"]),
            state,
            escape(str("none" if row["value"] is None else row["value"])),
        )
    console.print(table)
    for row in rows:  # below the table, where a complete line can be copied
        if not row["ok"]:
            print_text(console, f"{row['name']}: {row['mend']}")
    failing = [row["name"] for row in rows if row["needed"] and not row["ok"]]
    click.echo(
        f"needed, but does not work: {', '.join(failing)}" if failing else "everything needed works"
    )
