"""What `planet push` sends of a run: a few files, and lines about what is not there."""

import contextlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from planet_rssm import config
from planet_rssm.base.files import read_regular
from planet_rssm.base.json_types import Json
from planet_rssm.base.trust import code_in
from planet_rssm.config import Settings
from planet_rssm.evaluation.baselines import CACHE
from planet_rssm.report.page.reading import RunFiles, read_run
from planet_rssm.report.page.scores import baseline_means, kept_scores
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.runs import location
from planet_rssm.runs.checkpoint import Checkpoint
from planet_rssm.runs.hub import PREFIX
from planet_rssm.runs.run import CONFIG, RECORD, VIDEOS

CARD = "README.md"
EVAL = "eval.json"
FILM = "replay"  # with its ending: the Hub shows a film of that name
FILMS = ("plan.mp4", "plan.gif")
MOST_FILM = 24 << 20  # bytes


@dataclass
class Parcel:
    """What is sent of a run, and what its card is written from."""

    run: RunFiles
    repo: str  # OWNER/NAME
    checkpoint: Checkpoint
    which: str  # the checkpoint, as it was asked for
    float16: bool
    scores: Json | None  # what `planet eval --json` prints of the kept episodes
    baselines: dict[str, tuple[float, int]]  # mean return and episodes, by name
    files: dict[str, bytes] = field(default_factory=dict)  # by their names at the Hub

    @property
    def settings(self) -> Settings:
        """The run's settings."""
        return self.checkpoint.settings

    @property
    def code(self) -> dict[str, str]:
        """What the settings name as `module:Class`, by key: it is not sent."""
        return code_in(config.flatten(self.settings))


def packed(name: str, repo: str, which: str = "last", *, float16: bool = False) -> Parcel:
    """Read what is sent of a run; nothing in it changes, and it may be under way.

    Args:
        name: a run folder, `pretrained:NAME` or `hf:OWNER/NAME`.
        repo: OWNER/NAME, by which the sent files call it: folders of this machine are not sent.
        which: the checkpoint: `last`, `best` or a number.
        float16: send weights in half the bytes.

    Raises:
        PlanetError: it is no run, or it has no such checkpoint.
    """
    run = read_run(name)
    path = location.find(run.folder, which)
    light = _without_folder(checkpoints.load(path).light(float16))
    parcel = Parcel(
        run=run,
        repo=repo,
        checkpoint=light,
        which=which,
        float16=float16,
        scores=_scores(run, path),
        baselines=baseline_means(run),
    )
    parcel.files = {
        CONFIG: config.dump(light.settings).encode(),
        f"{location.FOLDER}/{path.name}": checkpoints.to_bytes(light),
        **_small_files(run),
        **_film(run),
    }
    if parcel.scores is not None:
        text = json.dumps(parcel.scores).replace(json.dumps(name), json.dumps(f"{PREFIX}{repo}"))
        parcel.files[EVAL] = text.encode()
    return parcel


def _without_folder(checkpoint: Checkpoint) -> Checkpoint:
    """Return the same without where on this machine its episodes are."""
    data = checkpoint.settings.data
    if data.folder is None:
        return checkpoint
    named = data.model_copy(update={"folder": Path(data.folder).name or "episodes"})
    return replace(checkpoint, settings=checkpoint.settings.model_copy(update={"data": named}))


def _scores(run: RunFiles, checkpoint: Path) -> Json | None:
    """Return `planet eval`'s table of the episodes that were kept; None, and a line, without."""
    if checkpoint != location.find(run.folder):
        run.missing.append("no table: what planet eval keeps is of the last checkpoint")
        return None
    scores = kept_scores([run], [run.task], None)
    return scores if scores["results"] else None


def _small_files(run: RunFiles) -> dict[str, bytes]:
    """Return the record and the baselines, where they are."""
    places = {RECORD: (run.folder,), CACHE: (run.outputs, run.folder)}
    files: dict[str, bytes] = {}
    for name, folders in places.items():
        for folder in folders:
            with contextlib.suppress(OSError):  # `read_run` has named what is missing
                files.setdefault(name, read_regular(folder / name))
    return files


def _film(run: RunFiles) -> dict[str, bytes]:
    for name in FILMS:
        path = run.outputs / VIDEOS / name
        if path.is_file():
            try:
                return {f"{FILM}{path.suffix}": read_regular(path, MOST_FILM)}
            except OSError as error:
                run.missing.append(f"{VIDEOS}/{name} is left out: {error.strerror}")
                return {}
    run.missing.append(f"no film: planet plan {run.word} --video")
    return {}
