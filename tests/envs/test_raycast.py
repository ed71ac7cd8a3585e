import colorsys

import mujoco
import numpy as np
import pytest

from planet_rssm.config import EnvSettings
from planet_rssm.envs import registry
from planet_rssm.envs.dmc import DMControlEnv
from planet_rssm.envs.raycast import RayCaster

CAMERA = '<camera name="front" pos="0 -2 0" xyaxes="1 0 0 0 0 1" fovy="45"/>'


def scene(body, assets=""):
    xml = f"<mujoco><asset>{assets}</asset><worldbody>{CAMERA}{body}</worldbody></mujoco>"
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def hue(pixel):
    return colorsys.rgb_to_hsv(*(np.asarray(pixel) / 255.0))[0]


def env(task, size=64):
    made = DMControlEnv(registry.resolve(EnvSettings(id=task, renderer="raycast", size=size)))
    made.reset(seed=0)
    return made


@pytest.mark.parametrize("size", [32, 48, 64, 84, 128, 256])
def test_sphere_fills_its_share_of_the_view(size):
    model, data = scene('<geom size="0.5" rgba="1 0 0 1"/>')
    image = RayCaster(model, size, samples=1).render(data)
    share = (image[..., 0] > 0).mean()
    tangent = np.tan(np.arcsin(0.5 / 2)) / np.tan(np.radians(22.5))
    assert share == pytest.approx(np.pi * tangent**2 / 4, rel=0.06)
    assert hue(image[size // 2, size // 2]) == 0 and not image[0, 0].any()


def test_image_is_the_right_way_round():
    red, green = (
        '<geom pos=".4 0 .4" size=".2" rgba="1 0 0 1"/>',
        '<geom pos="-.4 0 -.4" size=".2" rgba="0 1 0 1"/>',
    )
    model, data = scene(red + green)
    image = RayCaster(model, 64).render(data).astype(int)
    assert image[:32, 32:, 0].sum() == image[..., 0].sum() > 0
    assert image[32:, :32, 1].sum() == image[..., 1].sum() > 0


def test_frames_are_new_arrays_and_the_model_is_left_alone():
    made = env("reacher-easy")
    model, data = made._env.physics.model.ptr, made._env.physics.data.ptr
    before = model.bvh_aabb.copy(), model.geom_group.copy(), model.geom_aabb.copy()
    caster = RayCaster(model, 64)
    first, second = caster.render(data), caster.render(data)
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(first, second)
    for array, after in zip(
        before, (model.bvh_aabb, model.geom_group, model.geom_aabb), strict=True
    ):
        np.testing.assert_array_equal(array, after)


def test_invisible_geoms_are_not_drawn():
    material = '<material name="red" rgba="1 0 0 1"/>'
    for looks in ('rgba="1 0 0 0"', 'material="red" rgba=".5 .5 .5 0"', 'material="red" group="3"'):
        model, data = scene(f'<geom size=".5" {looks}/>', material)
        assert not RayCaster(model, 32).render(data).any()


def test_colour_comes_from_the_material_unless_the_geom_has_its_own():
    material = '<material name="green" rgba="0 1 0 1"/>'
    for looks, expected in (
        ('material="green"', 1 / 3),
        ('material="green" rgba="0 0 1 1"', 2 / 3),
    ):
        model, data = scene(f'<geom size=".5" {looks}/>', material)
        assert hue(RayCaster(model, 32).render(data)[16, 16]) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["sphere", "capsule", "box", "cylinder", "ellipsoid"])
def test_site_looks_like_the_geom_of_its_shape(kind):
    looks = f'type="{kind}" pos=".2 0 .1" euler="30 40 50" size=".2 .3 .25" rgba="1 .5 0 1"'
    scenes = scene(f"<geom {looks}/>"), scene(f"<site {looks}/>")
    frames = [RayCaster(model, 64).render(data) for model, data in scenes]
    assert frames[0].any()
    np.testing.assert_array_equal(*frames)


def test_site_behind_a_geom_is_hidden():
    geom, site = '<geom size=".5" rgba="1 0 0 1"/>', '<site pos="0 1 0" size=".3" rgba="0 1 0 1"/>'
    (model, data), (bare, bare_data) = scene(geom + site), scene(geom)
    np.testing.assert_array_equal(
        RayCaster(model, 64).render(data), RayCaster(bare, 64).render(bare_data)
    )


def test_checker_shows_that_the_camera_moves():
    made = env("walker-walk")
    physics = made._env.physics
    frames = []
    for x in (0.0, 0.3):
        with physics.reset_context():
            physics.named.data.qpos["rootx"] = x
        frames.append(made.render_frame(64).astype(int))
    moved = (np.abs(frames[0] - frames[1]).max(-1) > 10).mean()
    assert 0.01 < moved < 0.3  # the floor's squares, not the body, which the camera follows


@pytest.mark.parametrize("task", ["finger-spin", "pendulum-swingup", "humanoid-walk", "fish-swim"])
def test_no_part_of_a_body_is_missing(task):
    made = env(task)
    for _ in range(5):
        made.step(made.action_space.sample())
    model, data = made._env.physics.model.ptr, made._env.physics.data.ptr
    caster = RayCaster(model, 64, samples=1)
    caster.render(data)
    nothing, groups = np.full(1, -1, np.int32), np.array([1, 1, 1, 0, 0, 0], np.uint8)
    for ray in range(0, 64 * 64, 5):
        mujoco.mj_ray(
            model, data, data.cam_xpos[0], caster._rays[ray], groups, True, -1, nothing, None
        )
        assert caster._hit[ray] in (nothing[0], *range(model.ngeom, model.ngeom + model.nsite))


def pole_pixels(size):
    """Return for 24 angles of cartpole's pole how many pixels it changes by at least a tenth."""
    made = env("cartpole-swingup", size)
    physics = made._env.physics
    counts = []
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        with physics.reset_context():
            physics.data.qpos[:] = 0, angle
        shown = made.render_frame(size).astype(int)
        physics.named.model.geom_rgba["pole_1"] = 0.1, 0.1, 0.1, 0
        hidden = made.render_frame(size).astype(int)
        physics.named.model.geom_rgba["pole_1"] = 0.5, 0.5, 0.5, 1
        counts.append((np.abs(shown - hidden).max(-1) > 25).sum())
    return counts


@pytest.mark.parametrize("size", [32, 64])
def test_thin_pole_is_visible_at_every_angle(size):
    assert min(pole_pixels(size)) >= size // 8


@pytest.mark.parametrize(
    ("task", "low", "high"), [("reacher-easy", 0.9, 0.05), ("finger-turn_easy", 0.9, 0.05)]
)
def test_target_is_red(task, low, high):
    image = env(task).render_frame(64).reshape(-1, 3)
    hues = np.array([hue(pixel) if np.ptp(pixel) > 60 else 0.5 for pixel in image])
    assert ((hues >= low) | (hues <= high)).sum() > 10


def targets(made):
    """Yield the colours, and the rows in them, of sites and geoms that are called target."""
    model = made._env.physics.model
    for kind, count, rgba, material, group in (
        ("site", model.nsite, model.site_rgba, model.site_matid, model.site_group),
        ("geom", model.ngeom, model.geom_rgba, model.geom_matid, model.geom_group),
    ):
        for row in range(count):
            shown = (
                group[row] <= 2
                and (rgba[row, 3] if material[row] < 0 else model.mat_rgba[material[row], 3]) > 0
            )
            if shown and "target" in model.id2name(row, kind):
                yield rgba, row


# Those that a task draws anew; the acrobot's is fixed, and in a group that dm_control hides.
TARGETED = [
    "finger-turn_easy",
    "finger-turn_hard",
    "reacher-easy",
    "reacher-hard",
    "point_mass-easy",
    "point_mass-hard",
]
TARGETED += [
    "fish-swim",
    "swimmer-swimmer6",
    "swimmer-swimmer15",
    "quadruped-fetch",
    "stacker-stack_2",
    "stacker-stack_4",
]
TARGETED += [
    f"manipulator-{task}" for task in ("bring_ball", "bring_peg", "insert_ball", "insert_peg")
]


@pytest.mark.parametrize("task", TARGETED)
def test_every_target_is_seen(task):
    made = env(task)

    def pixels(
        seed,
    ):  # that the target changes: none where the peg's is in its slot or the camera looks elsewhere
        made.reset(seed=seed)
        markers, shown = list(targets(made)), made.render_frame(64).astype(int)
        for rgba, row in markers:
            rgba[row, 3] = 0.0
        change = (np.abs(shown - made.render_frame(64)).max(-1) > 25).sum()
        for rgba, row in markers:
            rgba[row, 3] = 1.0
        return change

    assert any(pixels(seed) > 0 for seed in range(4))


def test_string_of_the_cup_is_seen():
    made = env("cup-catch", 32)
    shown = made.render_frame(32).astype(int)
    made._env.physics.model.tendon_rgba[:, 3] = 0
    assert (np.abs(shown - made.render_frame(32)).max(-1) > 25).sum() >= 3
