import os
import signal
import subprocess
import sys
import textwrap
import time

import gymnasium
import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs import registry
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.envs.pool import EnvPool

by_python = pytest.mark.usefixtures("started_by_python")


def settings(task="cartpole-swingup", renderer="raycast", **more):
    return registry.resolve(EnvSettings(id=task, renderer=renderer, size=32, **more))


def test_settings_that_leave_something_open_are_resolved():
    with EnvPool(EnvSettings(id="cartpole-swingup", observe="vectors"), 1) as pool:
        assert pool.spec.id == "dmc/cartpole-swingup" and pool.spec.action_repeat == 8
        assert pool.spec.renderer == "none"


def actions(pool, rows, value=0.5):
    return {row: np.full(pool.spec.action_size, value, np.float32) for row in rows}


def gone(pid, seconds=10.0):
    deadline = time.monotonic() + seconds
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
    return not os.path.exists(f"/proc/{pid}")


@pytest.fixture(scope="module")
def pair():
    with EnvPool(settings(), 2) as pool:
        yield pool


@pytest.mark.parametrize("task", ["finger-turn_easy", "cup-catch", "walker-walk"])
def test_workers_show_what_the_environment_shows(task, request):
    if task == "cup-catch":
        request.getfixturevalue("started_by_python")
    env = DMControlEnv(settings(task))
    with EnvPool(settings(task), 1) as pool:
        assert pool.spec == env.env_spec
        np.testing.assert_array_equal(pool.reset({0: 5})[0]["image"], env.reset(seed=5)[0]["image"])
        for value in (0.7, -0.3):
            action = actions(pool, [0], value)
            step, (observation, *rest) = pool.step(action)[0], env.step(action[0])
            np.testing.assert_array_equal(step.observation["image"], observation["image"])
            assert [
                step.reward,
                step.terminated,
                step.truncated,
                {"env_steps": step.env_steps},
            ] == rest
            assert not step.lost


def test_rows_are_independent_and_seeded(pair):
    first = pair.reset({0: 1, 1: 2})
    again = pair.reset({1: 1})
    np.testing.assert_array_equal(first[0]["image"], again[1]["image"])
    assert (first[0]["image"] != first[1]["image"]).any()
    alone = pair.step(actions(pair, [0]))
    assert list(alone) == [0]
    np.testing.assert_array_equal(
        pair.step(actions(pair, [1]))[1].observation["image"], alone[0].observation["image"]
    )


def test_observations_belong_to_the_caller(pair):
    first = pair.reset({0: 1})[0]["image"]
    copy = first.copy()
    second = pair.step(actions(pair, [0], 1.0))[0].observation["image"]
    np.testing.assert_array_equal(first, copy)
    assert first.flags.owndata and (first != second).any()


def test_frames_for_videos(pair):
    pair.reset({0: 1})
    frame = pair.render(0, 200)
    assert frame.shape == (200, 200, 3) and frame.std() > 10
    with pytest.raises(ValueError, match="frame size 5000"):
        pair.render(0, 5000)


def test_misuse_costs_no_worker(pair):
    pair.reset({0: 0, 1: 0})
    with pytest.raises(ValueError, match="needs 1 finite"):
        pair.step({0: np.array([np.nan], np.float32)})
    with pytest.raises(ValueError, match="needs 1 finite"):
        pair.step({0: np.zeros(2, np.float32)})
    pair.step(actions(pair, [0]))
    while not pair.step(actions(pair, [0]))[0].truncated:
        pass
    with pytest.raises(gymnasium.error.ResetNeeded):
        pair.step(actions(pair, [0]))
    assert pair.lost == 0


def play(pool, seed, steps, before_step=lambda step: None):
    """Return what an episode of row 0 shows and pays."""
    history = [(pool.reset({0: seed})[0]["image"], 0.0)]
    for step in range(steps):
        before_step(step)
        answer = pool.step(actions(pool, [0], np.cos(step)))[0]
        assert not answer.lost
        history.append((answer.observation["image"], answer.reward))
    return history


def test_episode_of_a_killed_worker_goes_on_as_if_nothing_had_happened(caplog):
    caplog.set_level("INFO", "planet_rssm")
    with EnvPool(settings(), 2) as pool:
        undisturbed = play(pool, 1, 8)
        pids = []

        def kill(step):
            if step in (0, 3, 4):
                pids.append(pool._workers[0].pid)
                os.kill(pids[-1], signal.SIGKILL)
            pool._failures[0] = 0  # three in one episode would be no accident

        for (image, reward), (before, paid) in zip(
            play(pool, 1, 8, kill), undisturbed, strict=True
        ):
            np.testing.assert_array_equal(image, before)
            assert reward == paid
        assert pool.lost == 3 and all(gone(pid) for pid in pids)
    assert (
        "environment 0 was lost in step 4 of an episode and is replaced: killed by SIGKILL"
        in caplog.messages
    )
    assert (
        "environment 0: its episode goes on from step 3, played again up to there"
        in caplog.messages
    )


def test_hung_worker_is_replaced_after_the_timeout():
    with EnvPool(settings(step_timeout=2.5), 2) as pool:
        pool.reset({0: 1, 1: 2})
        pid = pool._workers[1].pid
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        steps = pool.step(actions(pool, [0, 1]))
        assert 2.5 <= time.monotonic() - begin
        assert (steps[0].lost, steps[1].lost, pool.lost) == (False, False, 1)
        assert gone(pid)


def test_raising_worker_is_replaced_and_quoted(monkeypatch, caplog):
    with EnvPool(settings(), 1) as pool:
        pool.reset({0: 1})
        monkeypatch.setattr(pool, "_checked", lambda row, action: action)
        assert pool.step({0: np.array([np.nan], np.float32)})[0].lost
        assert "needs shape [1] and finite values" in caplog.messages[-1]


def test_worker_lost_between_calls_costs_nothing():
    with EnvPool(settings(), 1) as pool:
        pool.reset({0: 1})
        frame = pool.render(0, 16)
        os.kill(pool._workers[0].pid, signal.SIGKILL)
        np.testing.assert_array_equal(pool.render(0, 16), frame)
        os.kill(pool._workers[0].pid, signal.SIGKILL)
        pool.reset({0: 1})  # done again on the next worker
        assert not pool.step(actions(pool, [0]))[0].lost and pool.lost == 2


def test_settings_that_no_worker_can_load_are_one_line():
    with pytest.raises(PlanetError, match="there is no such task; did you mean"):
        EnvPool(EnvSettings(id="dmc/walker-fly", renderer="none"), 1)


def test_worker_that_always_fails_is_not_restarted_for_ever(monkeypatch, tmp_path):
    (tmp_path / "dm_control").mkdir()
    (tmp_path / "dm_control" / "__init__.py").write_text(
        "print('noise')\nraise RuntimeError('broken on purpose')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        PlanetError, match="3 times in a row, at last before an episode: RuntimeError: broken on"
    ):
        EnvPool(settings(), 1)


@by_python
def test_printing_does_not_disturb_the_protocol(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nprint('{}', flush=True)\nos.write(1, b'{}\\n')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with EnvPool(settings(renderer="none"), 1) as pool:
        pool.reset({0: 1})
        assert pool.step(actions(pool, [0]))[0].env_steps == 8


def test_closing_ends_the_workers():
    pool = EnvPool(settings(), 2)
    pids = [worker.pid for worker in pool._workers]
    pool.close()
    pool.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_workers_end_with_a_killed_parent():
    script = """
        import os, signal
        from planet_rssm.config import EnvSettings
        from planet_rssm.envs.pool import EnvPool
        pool = EnvPool(EnvSettings(id="dmc/cartpole-swingup", renderer="none", action_repeat=8), 2)
        print(*(worker.pid for worker in pool._workers), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    pids = parent.stdout.split()
    assert len(pids) == 2, parent.stderr
    assert all(gone(pid) for pid in pids)
