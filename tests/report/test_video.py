import importlib.util
import logging
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from planet_rssm.base.errors import PlanetError
from planet_rssm.report.video import write_video

needs_av = pytest.mark.skipif(
    not importlib.util.find_spec("av"), reason="needs PyAV, extra `report`"
)
ROOT = Path(__file__).parents[2]
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128)]


def frames(height, width):
    return (np.full((height, width, 3), colour, np.uint8) for colour in COLOURS)


@needs_av
@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 47)])
def test_mp4_decodes_to_what_was_written(tmp_path, height, width):
    import av

    path = write_video(tmp_path / "a.mp4", frames(height, width), fps=12.5)
    assert path == tmp_path / "a.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 12.5
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [frame.shape for frame in decoded] == [(height + height % 2, width + width % 2, 3)] * 4
    for frame, colour in zip(decoded, COLOURS, strict=True):
        assert abs(frame.astype(int) - colour).max() <= 6  # chroma is rounded
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_gif_without_pyav(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "planet_rssm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = write_video(tmp_path / "a.mp4", frames(32, 32), fps=20)
    assert path == tmp_path / "a.gif"
    with Image.open(path) as image:
        assert (image.format, image.n_frames, image.size, image.info["duration"]) == (
            "GIF",
            4,
            (32, 32),
            50,
        )
        for number, colour in enumerate(COLOURS):
            image.seek(number)
            assert abs(np.asarray(image.convert("RGB"), int) - colour).max() <= 6
    [record] = caplog.records
    assert "a.gif" in record.getMessage()


def test_no_frame_is_no_file(tmp_path):
    with pytest.raises(PlanetError, match="no frame"):
        write_video(tmp_path / "a.mp4", [], 25)
    assert list(tmp_path.iterdir()) == []


@needs_av
def test_a_failed_frame_leaves_the_old_file(tmp_path):
    path = write_video(tmp_path / "a.mp4", frames(32, 32), 25)
    before = path.read_bytes()

    def broken():
        yield next(frames(32, 32))
        raise RuntimeError("renderer died")

    with pytest.raises(RuntimeError, match="renderer died"):
        write_video(path, broken(), 25)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("fps", [0.5, 10, 24, 30, 50, 67, 125, 200, 1000])
@pytest.mark.parametrize("count", [1, 2, 20])
def test_a_gif_plays_in_the_time_of_the_film(tmp_path, monkeypatch, fps, count):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    shades = [np.full((8, 8, 3), 5 + 12 * number, np.uint8) for number in range(count)]
    path = write_video(tmp_path / "a.mp4", shades, fps)
    durations, last = [], None
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            durations.append(image.info["duration"])
            last = np.asarray(image.convert("RGB"))[0, 0, 0]
    assert min(durations) >= 20
    assert sum(durations) == pytest.approx(1000 * count / fps, abs=5) or sum(durations) == 20
    assert last >= 5 + 12 * (count - 1 - math.ceil(fps / 50))
    if fps <= 50:
        assert len(durations) == count


def test_a_strip_has_a_row_of_frames_of_each_model(tmp_path, monkeypatch):
    out = tmp_path / "strip.png"
    words = [out, "pretrained:cartpole-swingup", "--seconds", "0.2", "--frames", "2"]
    monkeypatch.setattr(sys, "argv", ["film_strip", *map(str, words)])
    runpy.run_path(str(ROOT / "scripts" / "film_strip"))["main"]()
    with Image.open(out) as strip:
        left, right = (np.asarray(strip.convert("RGB"))[30:120, at : at + 90] for at in (132, 232))
    assert left.std() > 10 and right.std() > 10 and (left != right).any()
