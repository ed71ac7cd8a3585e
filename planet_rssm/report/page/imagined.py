"""What a run's model imagines of an episode, as a strip of pictures and a film."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from planet_rssm.agent import model_of
from planet_rssm.base.errors import PlanetError
from planet_rssm.data.episode import Episode
from planet_rssm.data.episode_folder import EPISODES
from planet_rssm.openloop.dream_errors import CONTEXT, HORIZONS
from planet_rssm.openloop.dream_frames import dream_frames
from planet_rssm.report.page.reading import RunFiles
from planet_rssm.runs import checkpoint as checkpoints
from planet_rssm.world_model import WorldModel

COLUMNS = 10
SIDE = 96  # pixels of a picture


class Strip(NamedTuple):
    """Truth, prediction and error by rows; columns are moments."""

    png: str  # data URI
    context: int  # frames that the model observes first
    steps: list[int]  # imagined steps of the columns
    error: list[float]  # mean absolute error of a pixel, 0 to 1
    still: list[float]  # the same of the last observed frame, which a model should beat
    episode: str  # which one


def strip_of(run: RunFiles) -> Strip | None:
    """Return the strip of a run's newest episode; None with a line in `missing` where none can be.

    Its code is not imported: a run that needs some is shown without.
    """
    if run.checkpoint is None or run.settings is None:
        return None
    if not (path := _newest(run.folder / EPISODES)):
        run.missing.append("no open-loop strip: it keeps no episodes here (planet dream makes one)")
        return None
    try:
        opened, device, _ = checkpoints.open_run(run.folder)
        model = model_of(opened).to(device)
        episode = Episode.load(path).select_observations(opened.spec.observation)
        if not model.encoder.image_keys:
            run.missing.append("no open-loop strip: it observes vectors")
            return None
        return _strip(model, episode, device, path.stem)
    except (PlanetError, OSError) as error:
        run.missing.append(f"no open-loop strip: {error}")
        return None


def _newest(folder: Path) -> Path | None:
    return max(folder.glob("[0-9]*.safetensors"), default=None)


def _strip(model: WorldModel, episode: Episode, device: torch.device, name: str) -> Strip:
    horizon = min(HORIZONS[-1], episode.length - CONTEXT)
    if horizon < 1:
        raise PlanetError(f"episode {name} has only {episode.length} frames")
    frames = dream_frames(model, [episode], horizon, CONTEXT, device, rows=1)
    steps = np.unique(np.linspace(1, horizon, min(COLUMNS, horizon)).round().astype(int))
    at = CONTEXT - 1 + steps
    truth, prediction = frames.truth[0], frames.prediction[0]
    error = np.abs(truth - prediction)
    still = np.abs(truth - truth[CONTEXT - 1])
    return Strip(
        png=png_uri(_joined([truth[at], prediction[at], error[at]])),
        context=CONTEXT,
        steps=steps.tolist(),
        error=error[at].mean((1, 2, 3)).tolist(),
        still=still[at].mean((1, 2, 3)).tolist(),
        episode=name,
    )


def _joined(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows of pictures, float [P, s, s, 3] of 0 to 1 each, as one picture."""
    times = max(1, SIDE // rows[0].shape[1])
    pictures = []
    for row in rows:
        large = np.round(row * 255).astype(np.uint8).repeat(times, 1).repeat(times, 2)
        framed = np.pad(large, ((0, 0), (1, 1), (1, 1), (0, 0)))
        pictures.append(np.concatenate(list(framed), 1))
    return np.concatenate(pictures)


def png_uri(pixels: np.ndarray) -> str:
    """Return a picture as a data URI."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", optimize=True)
    return data_uri("image/png", data.getvalue())


def data_uri(kind: str, data: bytes) -> str:
    """Return bytes of a media type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
