from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from planet_rssm import config
from planet_rssm.base.errors import PlanetError
from planet_rssm.config.planner import READS, unused
from planet_rssm.envs.registry import task_ids
from planet_rssm.planners import PLANNERS

PUBLISHED = ("planet", "dreamer-v1", "dreamer-v2", "dreamer-v3-2023", "dreamer-v3")
RESULTS = Path(__file__).parent.parent / "docs" / "results"


@pytest.mark.parametrize("preset", list(config.presets()))
def test_what_is_printed_reads_back_to_the_same_settings(preset, tmp_path):
    settings = config.load(preset, ["seed=3", "train.exploration_noise=1e-3"])
    path = tmp_path / "mine.yaml"
    config.save(settings, path)
    assert config.load(path) == settings
    assert settings.train.exploration_noise == 0.001


def test_planet_is_the_papers_recipe():
    s = config.load("planet")
    assert (s.rssm.deter, s.rssm.stoch, s.rssm.hidden, s.rssm.min_std) == (200, 30, 200, 0.1)
    assert (s.model.reward_layers, s.model.reward_units, s.model.reward_scale) == (2, 200, 10)
    assert (s.kl.form, s.kl.free_nats, s.model.decode_fraction, s.model.image_scale) == (
        "plain",
        3,
        1,
        1,
    )
    assert (s.optimizer.lr, s.optimizer.eps, s.optimizer.clip) == (1e-3, 1e-4, 1000)
    p = s.planner
    assert (p.name, p.candidates, p.horizon, p.iterations, p.elites) == ("cem", 1000, 12, 10, 100)
    t = s.train
    assert (t.batch_size, t.batch_length, t.seed_episodes, t.updates, t.envs) == (50, 50, 5, 100, 1)
    assert (t.exploration_noise, t.env_steps, s.env.size) == (0.3, 1_000_000, 64)


def test_presets_of_our_own_are_flat_differences_from_the_defaults():
    defaults = config.flatten(config.Settings())
    for name, path in config.presets().items():
        for key, value in yaml.safe_load(path.read_text()).items() if name not in PUBLISHED else ():
            if key == "tasks":
                continue
            assert defaults[key] != value, f"{path.name}: {key} is the default already"


# Settings that a published recipe need not state, where a choice of it leaves them without use.
OURS = "model.terms model.grad_heads model.decode_fraction model.size"
UNUSED = (
    (lambda s: s.rssm.latent == "gaussian", "rssm.classes rssm.unimix"),
    (lambda s: s.rssm.latent != "gaussian", "rssm.mean rssm.std rssm.min_std"),
    (lambda s: s.rssm.blocks, "rssm.cell"),
    (lambda s: s.kl.form == "plain", "kl.dyn kl.rep"),
    (lambda s: not s.kl.overshooting, "kl.overshooting_scale"),
    (lambda s: s.model.conv != "planet", "model.conv_act"),
    (lambda s: s.model.size, " ".join(config.sized("12m"))),
    (lambda s: s.optimizer.name != "laprop", "optimizer.agc"),
    (lambda s: s.optimizer.name != "adamw", "optimizer.weight_decay"),
    (lambda s: s.behavior.objective != "mix", "behavior.mix"),
    (lambda s: s.behavior.slow == "none", "behavior.slow_every behavior.slow_share"),
    # images alone, and of PlaNet environments that do not end
    (
        lambda s: s.behavior.name in ("none", "v1"),
        "model.vector_layers model.vector_units model.vector_scale",
    ),
    (
        lambda s: s.behavior.name == "none",
        "model.continue_layers model.continue_units model.continue_discount model.continue_scale",
    ),
)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_published_recipe_states_all_that_it_consists_of(preset):
    """No default of ours, nor one that a name stands for, decides what it does."""
    settings = config.load(preset)
    stated = yaml.safe_load(config.presets()[preset].read_text())
    sections = ("rssm.", "kl.", "model.", "optimizer.") + ("behavior.",) * (preset != "planet")
    ours = {"planner.name", "env.action_repeat", "env.size", "data.first_action"}
    ours |= {f"train.{name}" for name in "batch_size batch_length updates seed_episodes".split()}
    ours |= {"train.exploration_noise"}
    if settings.planner.name == "cem":
        ours |= {f"planner.{name}" for name in "horizon candidates iterations elites".split()}
    recipe = {key for key in config.flatten(settings) if key.startswith(sections)} | ours
    unused = " ".join([OURS, *(keys for applies, keys in UNUSED if applies(settings))])
    assert recipe - set(unused.split()) <= stated.keys()
    assert config.resolve(config.flatten(settings) | stated) == settings


@pytest.mark.parametrize(("preset", "name"), [("dreamer-v1", "v1"), ("dreamer-v2", "v2")])
def test_a_recipes_name_stands_for_what_its_preset_states(preset, name):
    named = config.flatten(config.load("planet", [f"behavior={name}"]))
    own = config.flatten(config.load(preset))
    assert {key: value for key, value in named.items() if key.startswith("behavior.")} == {
        key: value for key, value in own.items() if key.startswith("behavior.")
    }


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["planner.elitess=3"],
            "unknown setting 'planner.elitess'; did you mean 'planner.elites'.",
        ),
        (["behaviour=v3"], "unknown setting 'behaviour'; did you mean 'behavior'."),
        (
            ["planner.elites=2000"],
            "planner.elites = 2000: at most planner.candidates = 1000; lower the first or raise .*",
        ),
        (
            ["planner.name=icem", "planner.elites=600"],
            "planner.elites = 600: icem takes at most half of .* = 1000; .*",
        ),
        (["planner.horizon=0"], "planner.horizon = 0: must be at least 1"),
        (
            ["planner.colour=-0.5"],
            "planner.colour = -0.5: must be at least 0",
        ),
        (["planner.momentum=1"], "planner.momentum = 1: must be less than 1"),
        (["planner.temperature=0"], "planner.temperature = 0: must be more than 0"),
        (
            ["planner.discount=1.5"],
            "planner.discount = 1.5: must be at most 1",
        ),
        (
            ["planner.particles=0"],
            "planner.particles = 0: must be at least 1",
        ),
        (
            ["planner.risk=best"],
            "planner.risk = 'best': must be 'mean' or 'worst' or a valid number, "
            "unable to parse string as a number",
        ),
        (
            ["planner.min_std=0.5", "planner.max_std=0.1"],
            "planner.min_std = 0.5: at most planner.max_std = 0.1; change .*",
        ),
        (
            ["planner.name=mppi", "planner.act_by=draw"],
            "planner.act_by = 'draw': not with planner.weigh = 'all'; set it to elites",
        ),
        (
            ["planner.name=mpc"],
            f"planner.name = 'mpc': must be {', '.join(config.PLANNERS)} or module:Class",
        ),
        (
            ["env.id=gym/CartPole-v1", f"env.kwargs.x={'a' * 100_001}"],
            r"env.kwargs = .{1,200}: must have at most 100000 characters as JSON, these have .*",
        ),
        (["env.size=15"], "env.size = 15: must be at least 16"),
        (["env.size=513"], "env.size = 513: must be at most 512"),
        (["env.size=64.5"], "env.size = 64.5: must be a valid integer.*"),
        (["train.updates=0"], "train.updates = 0: must be at least 1"),
        (["train.updates=1.5e0"], "train.updates = '1.5e0': must be a valid integer.*"),
        (["train.updates=1.5"], "train.updates = 1.5: must be a valid integer.*"),
        (["train.updates=1e999"], "train.updates = '1e999': must be a valid integer.*"),
        (["train.updates=0e0"], "train.updates = .*: must be at least 1"),
        (["env.action_repeat=one"], "env.action_repeat = 'one': must be a valid integer.*"),
        (["optimizer.lr=.inf"], "optimizer.lr = inf: .*finite.*"),
        (
            ["data.capacity=20"],
            "data.capacity = 20: at least one chunk of train.batch_length = 50 frames; raise it",
        ),
        (["format=2"], "settings of format 2: this version reads up to 1; upgrade planet_rssm"),
        (["rssm.classes=1"], "rssm.classes = 1: must be at least 2"),
        (["rssm.stoch=0"], "rssm.stoch = 0: must be at least 1"),
        (["rssm.hidden=0"], "rssm.hidden = 0: must be at least 1"),
        (["rssm.deter=0"], "rssm.deter = 0: must be at least 1"),
        (["rssm.blocks=-1"], "rssm.blocks = -1: must be at least 0"),
        (["rssm.blocks=7"], "rssm.blocks = 7: must divide rssm.deter = 200; change one of them"),
        (
            ["rssm.blocks=8", "rssm.cell=norm_gru"],
            "rssm.cell = 'norm_gru': has no blocks; set rssm.blocks=0, or .*=gru",
        ),
        (
            ["rssm.kind=ssm", "rssm.input_layers=0"],
            "rssm.input_layers = 0: an ssm needs at least 1; set it",
        ),
        (["rssm.kind=lstm"], "rssm.kind = 'lstm': must be 'rssm', 'ssm' or 'rnn'"),
        (
            ["rssm.latent=vq"],
            f"rssm.latent = 'vq': must be {', '.join(config.LATENTS)} or module:Class",
        ),
        (["rssm.cell=lstm"], "rssm.cell = 'lstm': must be 'gru', 'norm_gru' or 'tf_gru'"),
        (["rssm.unimix=1"], "rssm.unimix = 1: must be less than 1"),
        (["rssm.min_std=-0.1"], "rssm.min_std = -0.1: must be at least 0"),
        (
            ["rssm.prior_layers=1000000000"],
            "rssm.prior_layers = 1000000000: must be at most 1000",
        ),
        (
            ["rssm.recurrent_depth=0"],
            "rssm.recurrent_depth = 0: must be at least 1",
        ),
        (["rssm.act=gelu"], "rssm.act = 'gelu': must be 'relu', 'elu' or 'silu'"),
        (["model.size=13m"], "model.size = '13m': must be '1m', .* or '400m'"),
        (["model.size=[12m]"], r"model.size = \['12m'\]: must be '1m', .* or '400m'"),
        (
            ["model.grad_heads=[image,value]"],
            "model.grad_heads.1 = 'value': must be 'image', .* or 'continue'",
        ),
        (["model.grad_heads=image"], r"model.grad_heads = 'image': must be a list, as \[a, b\]"),
        (
            ["model.reward=categorical"],
            "model.reward = 'categorical': must be 'gaussian', 'twohot' or 'symlog_twohot'",
        ),
        (
            ["model.continue_discount=1.1"],
            "model.continue_discount = 1.1: must be at most 1",
        ),
        (["kl.form=both"], "kl.form = 'both': must be 'plain' or 'balanced'"),
        (["kl.free_nats=-1"], "kl.free_nats = -1: must be at least 0"),
        (
            ["kl.overshooting=-1"],
            "kl.overshooting = -1: must be at least 0",
        ),
        (
            ["optimizer.name=sgd"],
            "optimizer.name = 'sgd': must be 'adam', 'adamw' or 'laprop'",
        ),
        (
            ["train.precision=half"],
            "train.precision = 'half': must be 'auto', 'float32', 'bfloat16' or 'float16'",
        ),
        (["seed"], "-s seed: not of the form key=value; .*"),
        (["seed=[1"], r"-s seed=\[1: the value is not YAML; quote it"),
    ],
)
def test_bad_settings_are_one_line(overrides, line):
    with pytest.raises(PlanetError, match=f"^{line}$"):
        config.load("planet", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["planner.name=shooting", "planner.candidates=4"],
        ["planner.name=mppi", "planner.candidates=4"],
        ["behavior=v3", "planner.name=actor", "planner.candidates=4"],
    ],
)
def test_what_the_planner_does_not_read_is_not_checked_against(overrides):
    assert config.load("planet", overrides).planner.elites == 100
    with pytest.raises(PlanetError, match="planner.elites = 100: at most planner.candidates = 4"):
        config.load("planet", [*overrides, "planner.name=cem", "planner.min_std=0"])
    with pytest.raises(PlanetError, match="planner.elites = 100"):
        config.load(
            "planet", [*overrides, "planner.name=mppi", "planner.weigh=elites", "planner.min_std=0"]
        )


def test_a_spread_that_mppi_does_not_read_is_not_checked_against_another():
    spreads = {"planner.min_std": 0.5, "planner.max_std": 0.1}
    assert config.resolve({"planner.name": "mppi"} | spreads).planner.min_std == 0.5
    with pytest.raises(PlanetError, match="planner.min_std = 0.5: at most planner.max_std = 0.1"):
        config.resolve({"planner.name": "mppi", "planner.weigh": "elites"} | spreads)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["planner.colour=1"],
            "planner.colour = 1.0: planner.name = 'cem' does not use it, only icem; ",
        ),
        (
            ["planner.name=shooting", "planner.elites=9"],
            "planner.elites = 9: planner.name = 'shooting' does not use it, only cem, icem, "
            "mppi with planner.weigh=elites; leave it out, or choose another planner.name",
        ),
        (
            ["planner.name=mppi", "planner.max_std=2"],
            "planner.max_std = 2.0: planner.name = 'mppi' does not use it, only cem, icem, mppi ",
        ),
        (["planner.act_by=mean"], "planner.act_by = 'mean': .* only mppi, actor; "),
    ],
)
def test_a_given_setting_that_the_planner_does_not_use_is_refused(overrides, line, tmp_path):
    mine = tmp_path / "mine.yaml"
    values = dict(text.split("=") for text in overrides)
    mine.write_text(yaml.safe_dump({"preset": "planet"} | values).replace("'", ""))
    alone = tmp_path / "alone.yaml"
    alone.write_text(mine.read_text().replace("preset: planet\n", ""))
    ways = (
        lambda: config.load("planet", overrides),
        lambda: config.override(config.load("planet"), overrides),
        lambda: config.with_planner(config.load("planet"), overrides),
        lambda: config.load(mine),
        lambda: config.load(alone),
        lambda: config.load(mine, ["seed=1"]),
    )
    for way in ways:
        with pytest.raises(PlanetError, match=f"^{line}"):
            way()


def test_settings_of_other_planners_are_kept_where_nobody_has_just_given_them(tmp_path):
    icem = config.load("planet", ["planner.name=icem", "planner.colour=3"])
    path = tmp_path / "config.yaml"
    config.save(icem, path)
    assert config.override(icem, ["planner.name=cem"]).planner.colour == 3
    assert config.load(path, ["planner.name=cem"]).planner.colour == 3
    config.save(config.override(icem, ["planner.name=cem"]), path)
    assert config.load(path).planner.name == "cem"  # a complete file states them all
    path.write_text("preset: planet\nplanner.name: icem\nplanner.colour: 3\n")
    assert config.load(path, ["planner.name=cem"]).planner.colour == 3


def test_an_actors_run_keeps_the_settings_of_a_search_until_it_acts():
    trained = config.load("planet", ["behavior=v3", "planner.name=actor", "planner.candidates=200"])
    assert config.with_planner(trained, ["planner.name=cem"]).planner.candidates == 200
    with pytest.raises(
        PlanetError, match="planner.candidates = 9: planner.name = 'actor' does not"
    ):
        config.with_planner(trained, ["planner.candidates=9"])


@pytest.mark.parametrize("preset", list(config.presets()))
def test_no_preset_states_what_its_planner_does_not_use(preset):
    stated = yaml.safe_load(config.presets()[preset].read_text())
    planner = config.load(preset).planner
    assert planner.name == "actor" or unused(planner, stated) is None


def test_every_setting_of_the_planner_is_read_by_some_planner():
    read = set().union(*READS.values())
    assert read | {"name"} == set(config.flatten(config.PlannerSettings()))


def test_a_size_stands_for_widths_and_those_given_beside_it_win():
    settings = config.load("dreamer-v3", ["model.size=1m", "rssm.hidden=48"])
    assert (settings.rssm.deter, settings.rssm.hidden, settings.rssm.classes) == (512, 48, 4)
    assert (settings.model.depth, settings.model.reward_units) == (4, 64)
    other = config.override(settings, ["model.size=25m"])
    assert (other.rssm.deter, other.rssm.hidden, other.model.depth) == (3072, 384, 24)
    assert config.override(other, ["seed=1"]).rssm == other.rssm


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_settings_files_of_the_results_can_still_be_read(path):
    assert config.load(path) != config.Settings()


def test_unknown_presets_and_files_are_one_line(tmp_path):
    with pytest.raises(PlanetError, match="unknown preset 'quickstat'; did you mean 'quickstart'"):
        config.load("quickstat")
    with pytest.raises(PlanetError, match="no such file; give a preset"):
        config.load("missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("- 1\n- 2")
    with pytest.raises(PlanetError, match="holds list, not lines of"):
        config.load(broken)


def test_a_settings_file_changes_the_preset_that_it_names(tmp_path, caplog):
    mine = tmp_path / "mine.yaml"
    mine.write_text("preset: dreamer-v3\nmodel.size: 1m\nbehavior: v1\ntrain.updates: 7\n")
    same = ["model.size=1m", "behavior=v1", "train.updates=7"]
    assert config.load(mine, ["seed=3"]) == config.load("dreamer-v3", [*same, "seed=3"])
    assert not caplog.records
    for wrong in ("quickstat", "[1, 2]", "null"):
        mine.write_text(f"preset: {wrong}\n")
        with pytest.raises(
            PlanetError, match=r"mine.yaml: preset: .* is none; (did you mean 'quickstart'|known: )"
        ):
            config.load(mine)
    with pytest.raises(PlanetError, match="unknown setting 'preset'"):
        config.load("planet", ["preset=quickstart"])


def test_a_settings_file_without_a_preset_says_whose_settings_it_takes(tmp_path, caplog):
    mine = tmp_path / "mine.yaml"
    mine.write_text("env.id: dmc/walker-walk\n")
    assert config.load(mine) == config.load("planet", ["env.id=dmc/walker-walk"])
    assert "names no preset, so the" in caplog.text and "`preset: quickstart`" in caplog.text
    caplog.clear()
    complete = config.dump(config.load("quickstart"))
    mine.write_text(complete)
    assert config.load(mine) == config.load("quickstart")
    assert not caplog.records
    mine.write_text(
        "".join(line for line in complete.splitlines(True) if line.startswith(("format", "env.")))
    )
    config.load(mine)
    assert "names no preset" in caplog.text


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        config.load("planet").planner.horizon = 3


@pytest.mark.parametrize("text", ["1e6", "1E+6", "10.0e5", "1000000.0", "1.e+6"])
def test_a_whole_number_may_be_written_as_a_float(text):
    settings = config.load(
        "planet", [f"train.env_steps={text}", "seed=2e0", "train.batch_length=6e1"]
    )
    assert (settings.train.env_steps, settings.seed, settings.train.batch_length) == (
        1_000_000,
        2,
        60,
    )
    assert config.load("planet", ["env.action_repeat=4e0"]).env.action_repeat == 4
    assert isinstance(settings.train.env_steps, int)
    assert "1000000\n" in config.dump(settings)


def test_every_planner_that_settings_may_name_exists():
    assert {*PLANNERS, "actor"} == set(config.PLANNERS)


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("preset", ["planet", "quickstart", "cartpole-vectors"])
def test_every_planner_can_be_named_alone(preset, name):
    settings = config.override(config.load(preset), [f"planner.name={name}"])
    planner = PLANNERS[name](settings.planner, 2)
    expected = {"cem": (1.0, 0.0, False), "icem": (0.5, 0.1, True), "mppi": (0.5, 0.0, True)}
    used = (planner.init_std, planner.momentum, planner.warm_start)
    assert used == expected.get(name, (1.0, 0.0, False))


def test_files_from_before_there_was_a_warm_start_mean_what_they_meant(tmp_path):
    then = {"format": 1, "planner.name": "cem", "planner.init_std": 1.0, "planner.momentum": 0.1}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(then))
    cem = config.load(path).planner
    assert (cem.momentum, cem.init_std) == (None, None)
    assert config.load(path, ["planner.momentum=0.1"]).planner.momentum == 0.1
    path.write_text(yaml.safe_dump(then | {"planner.name": "icem"}))
    assert (config.load(path).planner.momentum, config.load(path).planner.init_std) == (0.1, 1.0)
    config.save(config.load("planet", ["planner.momentum=0.1"]), path)
    assert config.load(path).planner.momentum == 0.1


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("mission", ("mission",)),
        ("[mission]", ("mission",)),
        ("a, b.c", ("a", "b.c")),
        ("[a, 0]", ("a", "0")),
        ("0", ("0",)),
        ("[]", ()),
    ],
)
def test_observations_are_named_in_a_list_or_a_text(text, names, tmp_path):
    for key in ("drop", "keys"):
        settings = config.load("planet", [f"env.{key}={text}"])
        assert getattr(settings.env, key) == names
        path = tmp_path / f"{key}.yaml"
        path.write_text(f"env.{key}: {text}\n")
        assert config.load(path) == settings
        config.save(settings, path)
        assert config.load(path) == settings


def test_arguments_of_an_environment_are_typed_kept_and_changed_one_by_one(tmp_path):
    texts = [
        "n=3",
        "rate=1e-3",
        "name=reach-v3",
        "on=true",
        "none=null",
        "sides=[1, 2.5]",
        "map={a: 1}",
        'word="7"',
    ]
    settings = config.load("planet", [f"env.kwargs.{text}" for text in texts])
    assert settings.env.kwargs == {
        "n": 3,
        "rate": 0.001,
        "name": "reach-v3",
        "on": True,
        "none": None,
        "sides": [1, 2.5],
        "map": {"a": 1},
        "word": "7",
    }
    config.save(settings, tmp_path / "config.yaml")
    assert config.load(tmp_path / "config.yaml") == settings
    assert (
        type(settings.env).model_validate_json(settings.env.model_dump_json()) == settings.env
    )  # to a worker
    changed = config.load(tmp_path / "config.yaml", ["env.kwargs.n=4"]).env.kwargs
    assert changed == settings.env.kwargs | {"n": 4}
    (tmp_path / "flat.yaml").write_text(
        "preset: planet\nenv.kwargs.n: 3\nenv.kwargs:\n  rate: 2.0\n"
    )
    assert config.load(tmp_path / "flat.yaml", ["env.kwargs={lit: true}"]).env.kwargs == {
        "n": 3,
        "rate": 2,
        "lit": True,
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"env.kwargs.a={'[' * 22}{']' * 22}", r"values, but a: it is nested more than 20 deep"),
        ("env.kwargs=3", r"env\.kwargs = 3: must be a valid dictionary"),
        ("env.kwargs.a.b=3", r"env\.kwargs = .*: must name arguments, env\.kwargs\.NAME=value"),
        (
            "env.kwargs.render_mode=human",
            r"env\.kwargs = .*: must not have render_mode, which env\.observe decides",
        ),
        (
            "env.kwargs.max_episode_steps=9",
            r".*must not have max_episode_steps, which env\.time_limit decides",
        ),
        (
            "env.kwargs.day=2024-01-02",
            r".*must have plain values, but day: .* quote it to have a text",
        ),
        ("env.kwargs.most=.inf", r".*must have plain values, but most: inf"),
        ("env.drop=[[a]]", r"env\.drop\.0 = \['a'\]: must be a valid string"),
        ("env.drop=[on]", r"env\.drop\.0 = True: must be a valid string"),
        ("env.kwarg.n=3", r"unknown setting 'env\.kwarg\.n'; did you mean 'env\.kwargs'\?"),
    ],
)
def test_names_and_arguments_that_are_none_are_one_line(text, line):
    with pytest.raises(PlanetError, match=line) as caught:
        config.load("planet", [text])
    assert "\n" not in str(caught.value)


def test_a_trained_model_keeps_its_environments_arguments():
    with pytest.raises(PlanetError, match="only planner"):
        config.with_planner(config.load("planet"), ["env.kwargs.n=3"])


def test_a_presets_ray_casting_is_not_for_an_environment_that_is_not_ray_cast(tmp_path):
    assert config.load("quickstart").env.renderer == "raycast"
    assert config.load("quickstart", ["env.id=dmc/walker-run"]).env.renderer == "raycast"
    for task in ("mine:Env", "gym/CartPole-v1", "gym/ale_py:ALE/Pong-v5"):
        assert config.load("quickstart", [f"env.id={task}"]).env.renderer == "auto"
        asked = config.load("quickstart", [f"env.id={task}", "env.renderer=raycast"])
        assert asked.env.renderer == "raycast"  # refused in a line, see envs.registry
    path = tmp_path / "mine.yaml"
    path.write_text("preset: quickstart\nenv.id: mine:Env\n")
    assert config.load(path).env.renderer == "auto"


WALKER = {"train.seed_episodes": 20, "train.updates": 400, "train.env_steps": 300_000}


@pytest.mark.parametrize("spelt", ["dmc/walker-walk", "walker_walk", "dmc_walker_walk"])
def test_a_preset_may_differ_by_task(spelt, tmp_path):
    own = config.flatten(config.load("quickstart"))
    there = config.flatten(config.load("quickstart", [f"env.id={spelt}"]))
    assert there == own | WALKER | {"env.id": spelt}
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"preset: quickstart\nenv.id: {spelt}\ntrain.updates: 7\n")
    assert config.flatten(config.load(mine)) == there | {"train.updates": 7}
    mine.write_text("preset: quickstart\ntrain.updates: 7\n")
    assert config.load(mine, [f"env.id={spelt}"]) == config.load(
        "quickstart", [f"env.id={spelt}", "train.updates=7"]
    )


def test_what_is_given_wins_over_the_table_of_tasks():
    asked = config.load("quickstart", ["env.id=cup_catch", "train.updates=9", "train.envs=1"])
    table = config.load("quickstart", ["env.id=ball_in_cup-catch"])
    assert (asked.train.updates, asked.train.envs) == (9, 1)
    assert (
        asked.train.env_steps == table.train.env_steps != config.load("quickstart").train.env_steps
    )
    assert config.load("quickstart", ["env.id=dmc/walker-run"]).train.updates == 300


@pytest.mark.parametrize("preset", config.presets())
def test_every_task_of_a_table_resolves_and_differs(preset):
    stated = yaml.safe_load(config.presets()[preset].read_text())
    for task, changes in stated.get("tasks", {}).items():
        assert task in task_ids() and changes
        settings = config.flatten(config.load(preset, [f"env.id={task}"]))
        for key, value in changes.items():
            assert settings[key] == value != stated.get(key), (task, key)


def test_a_table_of_tasks_is_a_presets_own(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("preset: quickstart\ntasks: {dmc/walker-walk: {train.updates: 1}}\n")
    with pytest.raises(PlanetError, match="unknown setting 'tasks'"):
        config.load(mine)


def test_a_copy_of_a_preset_keeps_its_table(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(config.presets()["quickstart"].read_text())
    for task in ("dmc/walker-walk", "dmc/cartpole-swingup"):
        asked = [f"env.id={task}"]
        assert config.load(mine, asked) == config.load("quickstart", asked)
    for wrong in ("3", "[dmc/walker-walk]", "{dmc/walker-walk: 5}"):
        mine.write_text(f"env.id: dmc/walker-walk\ntasks: {wrong}\n")
        with pytest.raises(PlanetError, match=r"mine.yaml: tasks = .*: must be lines of"):
            config.load(mine)
