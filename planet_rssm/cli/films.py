"""Where a run's films are, tried before the work for them."""

from pathlib import Path

from planet_rssm.cli import options
from planet_rssm.runs.run import VIDEOS


def film_of(folder: Path, name: str) -> Path:
    """Return where a film of a run belongs; its folder is made."""
    (folder / VIDEOS).mkdir(parents=True, exist_ok=True)
    return folder / VIDEOS / f"{name}.mp4"


def check_film(option: str, folder: Path, name: str) -> None:
    """Refuse a film that cannot be written before episodes are played; no folder is made.

    Raises:
        PlanetError: see `options.check_output`.
    """
    existing = next(path for path in (folder / VIDEOS, folder, Path()) if path.exists())
    options.check_output(option, existing / f"{name}.mp4")
