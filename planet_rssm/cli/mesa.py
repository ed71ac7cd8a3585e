"""`planet doctor --install-gl`: the distribution's Mesa, unpacked beside Python; no root needed."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from planet_rssm.base.errors import PlanetError
from planet_rssm.envs import gl

PACKAGES = ("libegl1", "libgl1", "libgl1-mesa-dri")
OPTIONAL = ("libosmesa6",)  # gone since Mesa 25.1
_WITHOUT = "or use env.renderer=raycast, which needs no GL"


def install() -> str:
    """Make EGL or OSMesa render in software for the processes that we start; return what was done.

    Raises:
        PlanetError: no apt here, a download that failed, or a Mesa that does not render; nothing is
            left behind.
    """
    if ready := _rendering():
        return f"nothing to install: {ready}"
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise PlanetError(
                f"--install-gl: there is no {tool} here, only packages of Debian and Ubuntu can be "
                f"unpacked; install Mesa's EGL or OSMesa as your system does, {_WITHOUT}"
            )
    folder = gl.mesa_folder()
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="mesa-") as scratch:
            unpacked = _unpack(_download(Path(scratch)), Path(scratch) / "mesa")
            shutil.rmtree(folder, ignore_errors=True)
            unpacked.rename(folder)
    except OSError as error:
        raise PlanetError(
            f"--install-gl: {error.strerror} ({error.filename}); it needs 250 MB in "
            f"{folder.parent}, in a virtual environment of your own"
        ) from None
    if ready := _rendering():
        return f"unpacked Mesa into {folder}: {ready}"
    shutil.rmtree(folder)
    failed = "; ".join(f"{backend}: {gl.probe(backend).error}" for backend in ("egl", "osmesa"))
    raise PlanetError(
        f"--install-gl: the distribution's Mesa does not render here ({failed}); {_WITHOUT}"
    )


def _rendering() -> str:
    """Return which backends render, or "" if none does."""
    gl.probe.cache_clear()
    probes = [gl.probe(backend) for backend in ("egl", "osmesa")]
    return ", ".join(
        f"{probe.backend} renders with {probe.renderer}" for probe in probes if probe.ok
    )


def _download(scratch: Path) -> list[Path]:
    """Fetch the packages and what they need here, by apt's resolver with its state in `scratch`."""
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    options = ["-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
    options += ["-o", f"Dir::Log={scratch}"]
    options += ["-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User="]
    _apt(["apt-get", *options, "-q", "update"])
    known = [name for name in OPTIONAL if _knows(["apt-cache", *options, "show", name])]
    download = ["-q", "-y", "--no-install-recommends", "--download-only", "install"]
    _apt(["apt-get", *options, *download, *PACKAGES, *known])
    return sorted((scratch / "cache" / "archives").glob("*.deb"))


def _unpack(packages: list[Path], folder: Path) -> Path:
    folder.mkdir()
    for package in packages:
        _apt(["dpkg-deb", "-x", str(package), str(folder)])
    return folder


def _knows(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _apt(command: list[str]) -> None:
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        words = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        raise PlanetError(
            f"--install-gl: {command[0]} failed ({words}); try again with a network, {_WITHOUT}"
        )
