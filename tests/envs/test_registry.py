import logging
import subprocess
import sys

import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs import gl, registry


def test_tasks_are_those_of_the_suite():
    from dm_control import suite

    assert set(registry.TASKS) == set(suite.ALL_TASKS)


@pytest.mark.parametrize("task_id", registry.task_ids())
def test_canonical_id_stands_for_itself(task_id):
    assert registry.canonical_id(task_id) == task_id


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("walker-walk", "dmc/walker-walk"),
        ("dmc_walker_walk", "dmc/walker-walk"),
        ("walker_walk", "dmc/walker-walk"),
        ("dmc_ball_in_cup_catch", "dmc/ball_in_cup-catch"),
        ("ball-in-cup-catch", "dmc/ball_in_cup-catch"),
        ("cup-catch", "dmc/ball_in_cup-catch"),
        ("dmc/finger-turn-easy", "dmc/finger-turn_easy"),
        ("humanoid_cmu-run", "dmc/humanoid_CMU-run"),
    ],
)
def test_other_spellings_are_understood(spelling, canonical):
    assert registry.canonical_id(spelling) == canonical


def test_unknown_task_names_the_nearest():
    with pytest.raises(
        PlanetError, match=r"env\.id = 'walker-wlak'.*did you mean 'dmc/walker-walk'\?"
    ) as caught:
        registry.resolve(EnvSettings(id="walker-wlak"))
    assert "\n" not in str(caught.value)


def test_action_repeats():
    expected = {
        "cartpole-balance": 8,
        "reacher-hard": 4,
        "cheetah-run": 4,
        "finger-spin": 2,
        "cup-catch": 4,
    }
    expected |= {"walker-run": 2, "hopper-hop": 2}
    assert {task: registry.action_repeat(task) for task in expected} == expected


def test_resolve_keeps_what_was_set():
    resolved = registry.resolve(
        EnvSettings(id="cup-catch", action_repeat=6, renderer="none", size=32)
    )
    assert resolved == EnvSettings(
        id="dmc/ball_in_cup-catch", action_repeat=6, renderer="none", size=32
    )
    assert registry.resolve(resolved) == resolved


def _pretend(monkeypatch, renderer, ok=True):
    monkeypatch.setattr(
        gl,
        "probe",
        lambda backend: gl.GlProbe(backend, ok, renderer, "" if ok else "no such library"),
    )


def test_auto_takes_hardware_gl(monkeypatch):
    _pretend(monkeypatch, "NVIDIA H200/PCIe/SSE2")
    monkeypatch.setattr(sys, "platform", "linux")
    assert registry.resolve(EnvSettings()).renderer == "egl"


@pytest.mark.parametrize(("renderer", "ok"), [("llvmpipe (LLVM 15)", True), ("", False)])
def test_auto_falls_back_to_ray_casting_and_says_so_once(monkeypatch, caplog, renderer, ok):
    _pretend(monkeypatch, renderer, ok)
    with caplog.at_level(logging.INFO, logger="planet_rssm"):
        assert registry.resolve(EnvSettings()).renderer == "raycast"
    assert (
        len(caplog.messages) == 1
        and "ray cast" in caplog.messages[0]
        and "\n" not in caplog.messages[0]
    )


def test_broken_renderer_that_was_asked_for_is_refused(monkeypatch):
    _pretend(monkeypatch, "", ok=False)
    with pytest.raises(
        PlanetError, match=r"env\.renderer = 'egl'.*no such library.*env\.renderer=raycast"
    ):
        registry.resolve(EnvSettings(renderer="egl"))


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("registry", ("mujoco", "dm_control", "torch")),
        ("pool", ("mujoco", "torch")),
        ("worker", ("torch",)),
    ],
)
def test_modules_import_nothing_heavy(module, absent):
    names = f"[name for name in {absent} if name in sys.modules]"
    code = f"import sys, planet_rssm.envs.{module}; print({names})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "[]\n"
    )


def test_what_draws_by_pyglet_opens_no_window_where_there_is_no_display(monkeypatch):
    settings = EnvSettings(id="gym/CartPole-v1", renderer="own")
    monkeypatch.setattr(registry.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    assert "PYGLET_HEADLESS" not in registry.worker_environment(settings)
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("PYGLET_HEADLESS", raising=False)
    assert registry.worker_environment(settings)["PYGLET_HEADLESS"] == "true"
    monkeypatch.setenv("PYGLET_HEADLESS", "false")  # the user's word
    assert registry.worker_environment(settings)["PYGLET_HEADLESS"] == "false"


def test_the_environment_of_a_dataset_that_is_not_known_leads_nowhere_else():
    with pytest.raises(PlanetError, match="of a Minari dataset, which is not known") as caught:
        registry.require_registered("gym/minari/my/CartPole-v1")
    assert "did you mean" not in str(caught.value) and "Agent.load" in str(caught.value)
