"""`planet doctor --install-gl`, with an apt of ours: nothing is downloaded, no GL is used."""

import functools
import os

import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.cli import mesa
from planet_rssm.cli.main import main
from planet_rssm.envs import gl

APT = """#!/bin/sh
echo "$0 $*" >> "$CALLS"
case "$*" in
*update*) [ -z "$BROKEN" ] || { echo "W: a warning" >&2; echo "E: no network" >&2; exit 100; } ;;
*show*) [ -z "$MODERN" ] ;;
*install*)
    for word; do case $word in Dir::Cache=*) archives=${word#*=}/archives ;; esac; done
    touch "$archives/libegl1_1.deb" "$archives/libllvm_2.deb" ;;
-x*) mkdir -p "$3/usr/lib/x86_64-linux-gnu" && touch "$3/usr/lib/x86_64-linux-gnu/${2##*/}.so" ;;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of which GL renders once Mesa is unpacked; returns its folder for Mesa."""
    folder, tools = tmp_path / "venv" / "mesa", tmp_path / "bin"
    folder.parent.mkdir()
    tools.mkdir()
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        (tools / name).write_text(APT)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(gl, "mesa_folder", lambda: folder)
    monkeypatch.setattr(
        gl, "probe", functools.cache(lambda backend: _probe(backend, folder.exists()))
    )
    return folder


def _probe(backend, ok):
    return gl.GlProbe(backend, ok, "llvmpipe" if ok else "", "" if ok else f"no lib{backend}")


def test_mesa_is_unpacked_whole(machine, tmp_path):
    line = mesa.install()
    assert str(machine) in line and "egl renders with llvmpipe" in line
    (libraries,) = machine.glob("usr/lib/*")
    assert sorted(path.name for path in libraries.iterdir()) == [
        "libegl1_1.deb.so",
        "libllvm_2.deb.so",
    ]
    assert [path.name for path in machine.parent.iterdir()] == ["mesa"]  # nothing else is left
    install = next(
        call for call in (tmp_path / "calls").read_text().splitlines() if "install" in call
    )
    assert "--download-only" in install and install.endswith(
        "libegl1 libgl1 libgl1-mesa-dri libosmesa6"
    )
    assert "nothing to install: egl" in mesa.install()


def test_a_distribution_without_osmesa(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("MODERN", "1")
    mesa.install()
    assert not [
        call
        for call in (tmp_path / "calls").read_text().splitlines()
        if "install" in call and "osmesa" in call
    ]


def test_no_network_is_one_line_and_leaves_nothing(machine, monkeypatch, capsys):
    monkeypatch.setenv("BROKEN", "1")
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--install-gl"])
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert (
        "--install-gl: apt-get failed (E: no network); "
        "try again with a network, or use env.renderer=raycast" in error
    )
    assert error.count("\n") == 1 and not list(machine.parent.iterdir())


def test_no_apt_is_one_line(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlanetError, match=r"there is no apt-get here.*env\.renderer=raycast"):
        mesa.install()


def test_a_mesa_that_does_not_render_is_taken_away(machine, monkeypatch):
    monkeypatch.setattr(gl, "probe", functools.cache(lambda backend: _probe(backend, False)))
    with pytest.raises(
        PlanetError, match=r"does not render here \(egl: no libegl; osmesa: no libosmesa\)"
    ):
        mesa.install()
    assert not list(machine.parent.iterdir())


def test_a_folder_that_cannot_be_written(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(gl, "mesa_folder", lambda: tmp_path / "nowhere" / "mesa")
    with pytest.raises(PlanetError, match=r"No such file.*virtual environment"):
        mesa.install()
