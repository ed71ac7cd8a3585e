"""The x-ray film and its arrays, of decisions with and without what they may have."""

import numpy as np
import pytest

from planet_rssm.agent import Decision
from planet_rssm.report.canvas import nice_ticks
from planet_rssm.report.trace import write_trace
from planet_rssm.report.xray import HEIGHT, WIDTH, xray_frames

RNG = np.random.default_rng(0)


def decision(horizon=5, size=2, **changes) -> Decision:
    steps = np.arange(1, horizon + 1)[:8]
    whole = Decision(
        sequence=RNG.uniform(-1, 1, (horizon, size)).astype(np.float32),
        value=3.0,
        reward=RNG.random(horizon).astype(np.float32),
        critic=RNG.random(horizon + 1).astype(np.float32),
        counts_critic=True,
        returns=[RNG.random(n).astype(np.float32) for n in (30, 20)],
        proposals=2,
        elites=RNG.uniform(-1, 1, (4, horizon, size)).astype(np.float32),
        elite_reward=RNG.random((4, horizon)).astype(np.float32),
        actor=RNG.uniform(-1, 1, (horizon, size)).astype(np.float32),
        steps=steps,
        belief=np.zeros((32, 32, 3), np.uint8),
        imagined=np.full((len(steps), 32, 32, 3), 90, np.uint8),
        spread=np.full((len(steps), 32, 32), 0.1, np.float16),
        vectors=None,
        vector_spread=None,
    )
    return whole._replace(**changes)


LESS = {
    "no critic, no actor": {"critic": None, "actor": None, "proposals": 0, "counts_critic": False},
    "an actor": {"returns": [], "proposals": 0, "counts_critic": False},
    "nothing asked": {
        "returns": [],
        "proposals": 0,
        "elites": np.zeros((0, 5, 2)),
        "elite_reward": np.zeros((0, 5)),
        "spread": None,
    },
    "vectors": {
        "belief": None,
        "imagined": None,
        "spread": None,
        "vectors": np.ones((6, 9)),
        "vector_spread": np.ones((5, 9)),
    },
    "broken returns": {"returns": [np.full(9, -np.inf), np.array([-np.inf, 1.0, 1.0])]},
    "all returns equal": {"returns": [np.ones(9)], "reward": np.zeros(5)},
}


def episode(decisions):
    frames = [np.full((48, 48, 3), 200, np.uint8) for _ in decisions]
    return "dmc/<b>, cem", 0.08, frames, decisions, [0.5] * len(decisions)


@pytest.mark.parametrize("name", LESS)
def test_a_picture_is_drawn_whatever_is_missing(name, tmp_path):
    pictures = list(xray_frames(*episode([decision(), decision(**LESS[name])])))
    assert [picture.shape for picture in pictures] == [(HEIGHT, WIDTH, 3)] * 2
    assert all(picture.dtype == np.uint8 for picture in pictures)
    assert (pictures[0] != pictures[1]).any()
    assert write_trace(tmp_path / "a.npz", *episode([decision(**LESS[name])])).is_file()


@pytest.mark.parametrize(("horizon", "size"), [(1, 1), (30, 1), (12, 40)])
def test_short_long_and_wide_plans(horizon, size):
    [picture] = xray_frames(*episode([decision(horizon, size)]))
    assert picture.shape == (HEIGHT, WIDTH, 3)


def test_the_real_frame_stands_where_it_is_said_to():
    [picture] = xray_frames(*episode([decision()]))
    assert (picture[100:390, 40:330] == 200).all()


def test_the_trace_is_read_without_pickle(tmp_path):
    smaller = decision(returns=[RNG.random(30), RNG.random(10)], elites=np.ones((3, 5, 2)))
    path = write_trace(tmp_path / "trace.npz", *episode([decision(), smaller]))
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["returns"].shape == (2, 2, 30)
        assert np.isnan(arrays["returns"][1, 1]).sum() == 20
        assert arrays["elites"].shape == (2, 4, 5, 2) and np.isnan(arrays["elites"][1, 3]).all()
        assert arrays["imagined"].dtype == np.uint8 and arrays["frame"].shape == (2, 48, 48, 3)
        assert str(arrays["title"]) == "dmc/<b>, cem"
        assert "vectors" not in arrays


@pytest.mark.parametrize("ends", [(0, 1), (-3, 1000), (5, 5), (0.1, 0.11), (0, float("inf"))])
def test_ticks_lie_within_the_axis(ends):
    ticks = nice_ticks(*ends)
    assert 1 <= len(ticks) <= 4 and all(ends[0] - 1e-9 <= tick <= ends[1] for tick in ticks)
