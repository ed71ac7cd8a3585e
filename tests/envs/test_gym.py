import logging
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from planet_rssm.base.errors import PlanetError
from planet_rssm.config import EnvSettings
from planet_rssm.envs import gl, process, registry
from planet_rssm.envs.gym_env import GymEnv
from planet_rssm.envs.make import make
from planet_rssm.envs.pool import EnvPool

CUT = (
    "homemade:Loud: has no time limit, so its episodes end after 1000 control steps; "
    "env.time_limit=N sets another"
)


def settings(task, **more):
    return registry.resolve(EnvSettings(**{"id": task, "size": 32, "observe": "vectors"} | more))


def refusal(task, **more):
    with pytest.raises(PlanetError) as caught:
        GymEnv(settings(task, **more))
    line = str(caught.value)
    assert "\n" not in line and task in line
    return line


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("gym/Pendulm-v1", "did you mean 'gym/Pendulum-v1'?"),
        ("gym/Pendulum", "did you mean 'gym/Pendulum-v1'?"),
        ("gym/ALE/Pong-v5", "pip install ale-py, then gym/ale_py:ALE/Pong-v5"),
        ("gym/Foo/Bar-v0", "import the package that registers Foo with it, gym/MODULE:Foo/Bar-v0"),
        ("gym/xyz", "`planet envs` lists what there is"),
        ("Pendulum-v1", "did you mean 'gym/Pendulum-v1'?"),
        ("gym/", "must be dmc/DOMAIN-TASK, gym/ID, gym/module:ID or module:Class"),
        ("no module:Class", "must be dmc/DOMAIN-TASK"),
    ],
)
def test_unknown_ids_are_refused_before_anything_starts(task, line):
    with pytest.raises(PlanetError) as caught:
        settings(task)
    assert (
        line in str(caught.value)
        and repr(task) in str(caught.value)
        and "\n" not in str(caught.value)
    )


@pytest.mark.parametrize(
    "task", ["gym/Pendulum-v1", "gym/ale_py:ALE/Pong-v5", "gym/phys2d/CartPole-v1", "a.b:C.d"]
)
def test_canonical_ids_stand_for_themselves(task):
    assert registry.canonical_id(task) == task and registry.action_repeat(task) == 1


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("gym/homemade:Drift-v4", "did you mean 'gym/homemade:Drift-v3'?"),
        (
            "gym/homemad:Drift-v3",
            "No module named 'homemad'; pip install the package of homemad, or start planet in",
        ),
        ("homemad:Drift", "No module named 'homemad'"),
        ("homemade.py:Drift", "; write homemade:Drift, the module without .py"),
        ("homemade:Drfit", "AttributeError: module 'homemade' has no attribute 'Drfit'"),
        ("homemade:number", "it makes a int, must be a gymnasium.Env"),
        ("homemade:Born", "cannot be made: OSError: no licence found"),
        (
            "homemade:Mute",
            "cannot be made: AssertionError (homemade.py, line 69: "
            "assert self.action_space is None)",
        ),
        ("homemade:Left", "cannot be made: SystemExit: no licence, giving up"),
        ("homemade:Wants", "; give it, -s env.kwargs.goal=VALUE -s env.kwargs.pace=VALUE"),
        (
            "gym/Hopper-v2",
            "cannot be made: ImportError: The mujoco v2 and v3 based environments have been moved",
        ),
    ],
)
def test_what_cannot_be_made_says_why(homemade, task, line):
    assert line in refusal(task)


def test_names_and_arguments_reach_the_worker(homemade):
    asked = {"kwargs": {"speed": 3.0}, "drop": ["phase"], "observe": "both"}
    with EnvPool(settings("homemade:Tuned", **asked), 1) as pool:
        assert sorted(pool.spec.observation) == ["eye", "place"]
        assert (pool.spec.kwargs, pool.spec.drop, pool.spec.keys) == (
            {"speed": 3.0},
            ("phase",),
            (),
        )
        pool.reset({0: 0})
        assert pool.step({0: np.ones(2)})[0].reward == 3.0
    assert list(GymEnv(settings("gym/homemade:Drift-v3", keys=["place"])).env_spec.observation) == [
        "place"
    ]


@pytest.mark.parametrize(
    ("task", "kwargs", "line"),
    [
        (
            "homemade:Tuned",
            {"sped": 1},
            "env.kwargs.sped: homemade:Tuned takes no such argument; did you mean 'speed'?",
        ),
        ("homemade:Drift", {"speed": 1}, "takes no such argument, nor any other"),
        (
            "gym/homemade:Drift-v3",
            {"speed": 1},
            "env.kwargs.speed: gym/homemade:Drift-v3 takes no such argument",
        ),
        (
            "gym/Pendulum-v1",
            {"gee": 9.0},
            "env.kwargs.gee: gym/Pendulum-v1 takes no such argument; did you mean 'g'?",
        ),
        (
            "homemade:Tuned",
            {"speed": "fast"},
            "cannot be made: ValueError: could not convert string to float: 'fast'",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(homemade, task, kwargs, line):
    assert line in refusal(task, kwargs=kwargs)


def test_arguments_of_registered_environments():
    light, heavy = (GymEnv(settings("gym/Pendulum-v1", kwargs={"g": g})) for g in (0.0, 50.0))
    spent = []
    for env in (light, heavy):
        env.reset(seed=1)
        spent.append([env.step(np.zeros(1))[0]["vector"][2] for _ in range(2)])
    assert spent[0][0] == pytest.approx(spent[0][1]) and spent[1][0] != pytest.approx(spent[1][1])
    with pytest.raises(PlanetError, match=r"env\.kwargs\.random: dmc/walker-walk is dm_control's"):
        settings("dmc/walker-walk", kwargs={"random": 1})


def test_names_of_dm_control():
    env = make(settings("dmc/reacher-easy", drop=["to_target"], renderer="none"))
    assert (
        sorted(env.env_spec.observation) == sorted(env.reset(seed=0)[0]) == ["position", "velocity"]
    )
    for wrong in ({"drop": ["to_targt"]}, {"keys": ["velocty"]}):
        with pytest.raises(
            PlanetError, match="dmc/reacher-easy has no such observation; did you mean"
        ):
            make(settings("dmc/reacher-easy", renderer="none", **wrong))
    with pytest.raises(
        PlanetError, match="env.drop: leaves nothing of what dmc/reacher-easy shows, position"
    ):
        make(settings("dmc/reacher-easy", renderer="none", drop="position, to_target, velocity"))


def test_renderers():
    assert settings("gym/Pendulum-v1").renderer == "none"
    assert settings("gym/Pendulum-v1", observe="both").renderer == "own"
    assert settings("a:B", renderer="own").renderer == "own"
    with pytest.raises(PlanetError, match=r"'raycast'.*use env\.renderer=auto"):
        settings("gym/Pendulum-v1", renderer="raycast")
    with pytest.raises(PlanetError, match=r"env\.renderer = 'own': dm_control has none"):
        settings("dmc/walker-walk", renderer="own")


def test_gl_that_was_asked_for_is_probed_and_passed_to_the_worker(monkeypatch):
    monkeypatch.setattr(
        gl, "probe", lambda backend: gl.GlProbe(backend, backend == "egl", "GPU", "no library")
    )
    chosen = settings("gym/Hopper-v5", observe="pixels", renderer="egl")
    assert chosen.renderer == process.environment(chosen)["MUJOCO_GL"] == "egl"
    with pytest.raises(
        PlanetError, match=r"'osmesa': does not render on this machine \(no library\)"
    ):
        settings("gym/Hopper-v5", renderer="osmesa")


@pytest.mark.parametrize(("theirs", "kept"), [("egl", "egl"), ("disable", None), (None, None)])
def test_other_workers_keep_a_gl_of_the_users(monkeypatch, theirs, kept):
    monkeypatch.setenv("MUJOCO_GL", theirs) if theirs else monkeypatch.delenv(
        "MUJOCO_GL", raising=False
    )
    assert process.environment(settings("gym/Pendulum-v1")).get("MUJOCO_GL") == kept
    assert (
        process.environment(EnvSettings(id="dmc/walker-walk", renderer="none"))["MUJOCO_GL"]
        == "disable"
    )


def test_mujoco_without_gl_says_so(monkeypatch):
    pytest.importorskip("imageio", reason="imageio is not installed")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl, "probe", lambda backend: gl.GlProbe(backend, False, "", "no library"))
    line = str(
        pytest.raises(PlanetError, GymEnv, settings("gym/Hopper-v5", observe="pixels")).value
    )
    assert "no GL works here (egl: no library; osmesa: no library; glfw: no library)" in line
    assert "env.observe=vectors" in line


def test_an_argument_that_the_environments_own_code_lacks_is_not_asked_of_the_user(homemade):
    line = refusal("homemade:Wants", kwargs={"goal": 1, "pace": 2, "mood": "odd"})
    assert "missing 1 required positional argument: 'x'" in line and "give it" not in line


def test_no_advice_leads_back_to_what_was_refused(homemade):
    assert "-s env.drop=image" in refusal("homemade:Framed", observe="pixels")
    line = refusal("homemade:Framed", observe="pixels", drop=["image"])
    assert "env.observe=vectors" not in line and "give as env.id=module:Class a wrapper" in line


def test_what_does_not_draw_is_refused_for_pixels(homemade):
    assert (
        "has no image observation and no render_mode='rgb_array'; use env.observe=vectors"
        in refusal("homemade:Bare", observe="pixels")
    )
    assert (
        "cannot draw itself (use env.observe=vectors, or fix this): RuntimeError: no display"
        in refusal("homemade:Dark", observe="pixels")
    )


def test_a_frame_that_is_not_square_has_bars_in_its_own_colour():
    made = GymEnv(settings("gym/CartPole-v1", observe="vectors", renderer="own"))
    made.reset(seed=0)
    frame = made.render_frame(64)
    assert (frame[0] == 255).all() and (frame[-1] == 255).all()  # CartPole draws 400 x 600 on white


def test_missing_pygame_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    assert "pygame is not installed, run `pip install" in refusal(
        "gym/Pendulum-v1", observe="pixels"
    )
    GymEnv(settings("gym/Pendulum-v1")).reset(seed=0)


def test_missing_imageio_is_reported(monkeypatch):
    loaded = [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "imageio", None)
    assert "; pip install imageio, which gymnasium's" in refusal("gym/Hopper-v5")


def test_time_limits(homemade, caplog):
    limits = {
        "gym/homemade:Drift-v3": 12,
        "homemade:factory": 7,
        "gym/CartPole-v1": 500,
        "homemade:Loud": 1000,
    }
    with caplog.at_level(logging.INFO, logger="planet_rssm"):
        for task, limit in limits.items():
            observe = "both" if task.startswith("gym/h") else "vectors"
            assert GymEnv(settings(task, observe=observe)).env_spec.episode_steps == limit
    assert caplog.messages == [CUT]
    longer = GymEnv(settings("gym/homemade:Drift-v3", time_limit=20))
    assert longer.env_spec.episode_steps == 20
    assert [longer.reset(seed=0)] and not any(longer.step(np.full(2, -0.9))[3] for _ in range(15))
    assert (
        GymEnv(settings("homemade:factory", time_limit=20)).env_spec.episode_steps == 7
    )  # its own wrapper stays


def test_an_end_is_not_a_truncation(homemade):
    env = GymEnv(settings("homemade:Drift", action_repeat=4, time_limit=8))
    env.reset(seed=0)
    outcome = env.step(np.ones(2))  # 7 a step
    assert (outcome[2], outcome[3], outcome[4]) == (False, False, {"env_steps": 4})
    reward, terminated, truncated, info = env.step(np.ones(2))[1:]
    assert (terminated, truncated) == (True, False) and info["env_steps"] < 4 and reward > 50


def test_rates(homemade):
    assert GymEnv(
        settings("homemade:Drift", action_repeat=3)
    ).env_spec.control_interval == pytest.approx(0.3)
    assert GymEnv(settings("homemade:Loud")).env_spec.control_interval == pytest.approx(1 / 30)
    spec = GymEnv(settings("homemade:Drift")).env_spec
    assert (spec.simulator, spec.terminates, spec.discrete) == (
        f"gymnasium {gymnasium.__version__}",
        True,
        False,
    )


def test_films_keep_the_shape_and_may_be_black(homemade, caplog):
    env = GymEnv(settings("homemade:Loud"))
    env.reset(seed=0)
    frame = env.render_frame(64)
    assert (frame == 200).all()  # 20 x 40 between bars of its own colour
    assert env.render().shape == (480, 480, 3)
    for task, lines in (
        (
            "homemade:Dark",
            ["homemade:Dark: its frames are black in videos: RuntimeError: no display"],
        ),
        ("homemade:Drift", []),
    ):
        dark = GymEnv(settings(task))
        dark.reset(seed=0)
        assert not dark.render_frame(64).any() and not dark.render_frame(64).any()
        assert caplog.messages == lines
        caplog.clear()


@pytest.mark.parametrize(
    ("observe", "renderer", "drawing"),
    [
        ("pixels", "own", gl.DRAWING),
        (
            "pixels",
            "none",
            gl.DRAWING,
        ),  # baselines: no frame is asked for, what it returns is drawn
        ("both", "none", gl.DRAWING),
        ("vectors", "none", ("dm_control",)),
    ],
)
def test_a_gl_is_chosen_for_what_an_environment_draws_itself(
    monkeypatch, observe, renderer, drawing
):
    asked = []
    monkeypatch.setattr(
        gl, "choose_when_mujoco_loads", lambda names=gl.DRAWING: asked.append(names)
    )
    GymEnv(settings("gym/CartPole-v1", observe=observe, renderer=renderer)).close()
    assert asked == [drawing]


def test_errors_of_the_users_reach_the_user_and_cost_an_episode(homemade, caplog):
    with EnvPool(settings("homemade:Falls"), 1) as pool:
        pool.reset({0: 0})
        steps = [pool.step({0: np.ones(2)})[0] for _ in range(2)]
    line = (
        homemade.read_text().splitlines().index('            raise RuntimeError("fell\\n   over")')
        + 1
    )
    words = f"RuntimeError: fell over (homemade.py, line {line})"
    assert [step.lost for step in steps] == [False, True] and steps[1].words == words
    assert (
        f"environment 0 was lost in step 2 of an episode and is replaced: {words}"
        in caplog.messages
    )


def test_observations_that_are_not_finite_cost_an_episode(homemade, caplog):
    with EnvPool(settings("homemade:Blurs"), 1) as pool:
        pool.reset({0: 0})
        assert pool.step({0: np.ones(2)})[0].lost
    assert "observation 'place' has NaN or infinity in it" in caplog.text


def test_what_workers_log_appears_once(homemade, caplog):
    process._log_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="planet_rssm"), EnvPool(settings("homemade:Loud"), 2):
        pass
    assert caplog.messages == [CUT]


def test_importing_the_pool_and_the_ids_imports_no_environment(homemade):
    code = (
        "import sys\nfrom planet_rssm.config import EnvSettings\n"
        "from planet_rssm.envs import pool, registry\n"
        "registry.resolve(EnvSettings(id='gym/Hopper-v5', observe='vectors'))\n"
        "registry.resolve(EnvSettings(id='homemade:Drift'))\n"
        "absent = ('homemade', 'mujoco', 'pygame', 'torch', 'dm_control')\n"
        "print([name for name in absent if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "[]\n"
    )
