"""docs/extend.md: its files work as they stand there, and what does not fit is one line."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Laplace, kl_divergence

from planet_rssm import Agent, Batch, ControlLoop, PlanetError, check_planner, config
from planet_rssm.cli.main import main
from planet_rssm.config import PlannerSettings, RSSMSettings
from planet_rssm.control import SimulatedTime
from planet_rssm.envs.spec import EnvSpec
from planet_rssm.evaluation.evaluate import evaluate
from planet_rssm.evaluation.plan_run import plan_run
from planet_rssm.planners import planner_from_settings
from planet_rssm.training.player import simple_player
from planet_rssm.training.record import write_episodes
from planet_rssm.world_model import WorldModel
from planet_rssm.world_model.latents import latent_from_settings

PAGE = (Path(__file__).parent.parent / "docs" / "extend.md").read_text()
LATENT, TERM, CONSTANT, PLANNER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
[SETTINGS] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SPEC = EnvSpec("gym/Test-v0", {"vector": ((3,), "float32")}, 2, 1, 0.1, 100, "none", "fake 0")
TINY = """
    rssm.deter=16 rssm.stoch=4 rssm.hidden=16 model.depth=2 model.reward_units=16 env.size=32
    env.renderer=raycast env.action_repeat=10 env.time_limit=100
    train.batch_size=4 train.batch_length=8
    train.updates=5 train.offline_updates=5 device=cpu
    planner.candidates=8 planner.iterations=1 planner.elites=2 planner.horizon=3
""".split()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with the page's files in it, importable from there alone."""
    (tmp_path / "my_latent.py").write_text(LATENT)
    (tmp_path / "my_term.py").write_text(TERM)
    (tmp_path / "my_planner.py").write_text(PLANNER)
    (tmp_path / "my_constant.py").write_text(CONSTANT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ("my_latent", "my_term", "my_planner", "my_constant", "theirs"):
        sys.modules.pop(name, None)


def test_the_pages_latent_term_and_planner_are_trained_and_planned_with(here):
    episodes = ["env.size=32", "env.renderer=raycast", "env.action_repeat=10", "env.time_limit=100"]
    write_episodes(
        here / "set", simple_player("dmc/cartpole-swingup", episodes, "random", 0), 2, 0, 2
    )
    (here / "mine.yaml").write_text(SETTINGS)
    tiny = [word for setting in TINY for word in ("-s", setting)]
    main(["train", "mine.yaml", "--offline", "--data", "set", "--run-dir", "run", *tiny])
    lines = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss/InverseAction"] > 0
    agent = Agent.load(here / "run", device="cpu")
    assert type(agent.model.rssm.latent).__name__ == "LaplaceLatent"
    assert type(agent.planner).__name__ == "Closer"
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    plan, _ = agent.act(
        agent.initial(), {"image": image}, torch.zeros(1, 1), torch.ones(1, dtype=torch.bool)
    )
    assert plan.action.abs().max() <= 1
    with ControlLoop(agent, hz=100) as loop:
        assert loop.tick({"image": image[0].numpy()}, is_first=True).action.shape == (1,)
    assert plan_run(here / "run", 1, device="cpu").planner == "my_planner:Closer"
    (row,) = evaluate(["run"], seeds=[1000], device="cpu").to_json()["results"]
    assert row["planner"] == "my_planner:Closer"


def test_a_planner_that_is_no_search_drives_an_agent_a_loop_and_the_verbs(here, capsys):
    episodes = ["env.size=32", "env.renderer=raycast", "env.action_repeat=10", "env.time_limit=100"]
    write_episodes(
        here / "set", simple_player("dmc/cartpole-swingup", episodes, "random", 0), 2, 0, 2
    )
    tiny = [word for setting in TINY for word in ("-s", setting)]
    main(["train", "quickstart", "--offline", "--data", "set", "--run-dir", "run", *tiny])
    name = "my_constant:Constant"
    agent = Agent.load(here / "run", device="cpu", overrides=[f"planner.name={name}"])
    assert type(agent.planner).__name__ == "Constant" and agent.planner.horizon == 3
    image = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    first = torch.ones(2, dtype=torch.bool)
    plan, _ = agent.act(agent.initial(2), {"image": image}, torch.zeros(2, 1), first)
    levels = torch.linspace(-1, 1, 11)
    assert all(action in levels for action in plan.action)
    assert plan.diagnostics["rounds_done"].tolist() == [1, 1]
    with ControlLoop(agent, execute=3, clock=SimulatedTime()) as loop:
        command = loop.tick({"image": image[0].numpy()}, is_first=True)
        assert command.source == "plan" and command.action[0] in levels
    with pytest.raises(PlanetError, match="execute 4: must be 1 to planner.horizon = 3 ticks"):
        ControlLoop(agent, execute=4)
    capsys.readouterr()
    main(["plan", "run", "--episodes", "1", "--planner", name, "--json"])
    assert json.loads(capsys.readouterr().out)["planner"] == name
    main(["eval", "run", "--episodes", "1", "--planner", name, "--json"])
    assert json.loads(capsys.readouterr().out)["results"][0]["planner"] == name
    with pytest.raises(PlanetError, match="planner.proposals = 'actor'"):
        Agent.load(here / "run", overrides=[f"planner.name={name}", "planner.proposals=actor"])


def test_the_pages_planners_keep_the_contract(here):
    for name in ("my_planner:Closer", "my_constant:Constant"):
        settings = PlannerSettings(name=name, candidates=16, elites=4, horizon=4)
        check_planner(planner_from_settings(settings, 2), 2)


def test_a_planner_without_what_diagnostics_read_is_reported(here):
    (here / "theirs.py").write_text(
        "from typing import NamedTuple\n"
        "from my_planner import Closer, Tensor\n"
        "class Bare(NamedTuple):\n    best: Tensor\n    entropy: Tensor\n"
        "class Blind(Closer):\n"
        "    def start(self, *args):\n"
        "        search = super().start(*args)\n"
        "        return Bare(search.best, search.best)\n"
    )
    planner = planner_from_settings(
        PlannerSettings(name="theirs:Blind", candidates=16, elites=4, horizon=4), 2
    )
    with pytest.raises(AssertionError) as caught:
        check_planner(planner, 2)
    line, other = str(caught.value).splitlines()
    assert line == "start() returns a Bare without `std`: diagnostics need it, a tensor (3, 4, 2)"
    assert other == "`entropy` of what start() returns is (3, 4, 2): must be a tensor (3,)"


def test_the_pages_latent_is_the_laplace_distribution(here):
    latent = latent_from_settings(RSSMSettings(latent="my_latent:LaplaceLatent", stoch=3))
    left, right = (
        latent.params(torch.randn(5, 6, generator=torch.Generator().manual_seed(seed)))
        for seed in (0, 1)
    )
    torch.testing.assert_close(
        latent.kl(left, right), kl_divergence(Laplace(*left), Laplace(*right)).sum(-1)
    )
    torch.testing.assert_close(latent.entropy(left), Laplace(*left).entropy().sum(-1))
    params = latent.params(torch.zeros(1, 6))
    noise = torch.randn(100_000, 3, generator=torch.Generator().manual_seed(2))
    drawn = latent.sample(params, noise)[:, 0]
    for place in (-1.0, 0.0, 0.5, 2.0):
        expected = Laplace(*params).cdf(torch.tensor(place))[0, 0]
        assert (drawn < place).float().mean() == pytest.approx(expected.item(), abs=0.01)


def test_the_pages_term_trains_itself_and_the_model(here):
    settings = config.load("planet", [*TINY, "model.terms=[my_term:InverseAction]"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WorldModel(settings, SPEC)
    assert model.parameter_counts()["terms"] > 0
    assert "terms" not in WorldModel(config.load("planet", TINY), SPEC).parameter_counts()
    first = torch.zeros(2, 5, dtype=torch.bool)
    first[:, 0] = True
    batch = Batch(
        {"vector": torch.randn(2, 5, 3)},
        torch.randn(2, 5, 2),
        torch.zeros(2, 5),
        first,
        ~first & first,
        first | ~first,
    )
    noise = model.draw(2, 5, torch.Generator().manual_seed(0), torch.device("cpu"))
    _, metrics, context = model.loss(batch, noise)
    term = model.terms["InverseAction"](model, batch, context)
    torch.testing.assert_close(term.mean(), metrics["loss/InverseAction"])
    reached = torch.autograd.grad(
        term.sum(), [*model.terms.parameters(), model.rssm.posterior_net[0].weight]
    )
    assert all(gradient.any() for gradient in reached)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "rssm.latent=laplace",
            f"rssm.latent = 'laplace': must be {', '.join(config.LATENTS)} or module:Class",
        ),
        (
            "rssm.latent=missing:Class",
            r"rssm.latent = 'missing:Class': .*No module named 'missing'.*",
        ),
        (
            "rssm.latent=theirs.py:Thing",
            r"rssm.latent = 'theirs.py:Thing': .*; write theirs:Thing, the module without .py",
        ),
        (
            "rssm.latent=theirs:Missing",
            r"rssm.latent = 'theirs:Missing': .*has no attribute 'Missing'.*",
        ),
        (
            "rssm.latent=theirs:Thing",
            r"rssm.latent = 'theirs:Thing': .*must be a subclass of .*Latent.*",
        ),
        (
            "rssm.latent=theirs:Half",
            r"rssm.latent = 'theirs:Half': .*lacks entropy, kl, sample\(\).*",
        ),
        (
            "rssm.latent=theirs:Unsummed",
            r"rssm.latent = 'theirs:Unsummed': .*kl\(\) returns shape \[2, 4\].*\[2\].*",
        ),
        (
            "rssm.latent=theirs:Sizeless",
            r"rssm.latent = 'theirs:Sizeless': .*no attribute 'noise_size'.*",
        ),
        (
            "planner.name=theirs:Thing",
            r"planner.name = 'theirs:Thing': .*must be a subclass of planet_rssm.types.Planner.*",
        ),
        ("model.terms=[inverse]", r"model.terms names 'inverse': each must be module:Class"),
        (
            "model.terms=[theirs:Thing]",
            r"model.terms = 'theirs:Thing': .*must be a subclass of torch.nn.*Module.*",
        ),
        (
            "model.terms=[my_term:InverseAction,my_term:InverseAction]",
            r"model.terms = \[.*\]: two of one class name; .*",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(here, override, line):
    (here / "theirs.py").write_text(
        "from my_latent import Latent, LaplaceLatent\n"
        "class Thing: pass\n"
        "class Half(Latent):\n    def params(self, raw): pass\n"
        "class Unsummed(LaplaceLatent):\n"
        "    def kl(self, left, right): return left.mean - right.mean\n"
        "class Sizeless(LaplaceLatent):\n"
        "    def __init__(self, _): self.size, self.raw_size, self.least = 4, 8, 1\n"
    )
    with pytest.raises(PlanetError, match=f"^{line}$"):
        settings = config.load("planet", [*TINY, override])
        planner_from_settings(settings.planner, 2)
        WorldModel(settings, SPEC)


def test_a_term_of_another_shape_is_one_line(here):
    (here / "theirs.py").write_text(
        "from my_term import nn\n"
        "class Scalar(nn.Module):\n"
        "    def __init__(self, *_): super().__init__()\n"
        "    def forward(self, model, batch, context): return batch.reward.mean()\n"
    )
    model = WorldModel(config.load("planet", [*TINY, "model.terms=[theirs:Scalar]"]), SPEC)
    yes = torch.ones(2, 4, dtype=torch.bool)
    batch = Batch(
        {"vector": torch.zeros(2, 4, 3)}, torch.zeros(2, 4, 2), torch.zeros(2, 4), yes, ~yes, yes
    )
    noise = model.draw(2, 4, torch.Generator(), torch.device("cpu"))
    with pytest.raises(
        PlanetError,
        match=r"^model.terms: Scalar returns shape \[\], must be \[B, T\] = \[2, 4\]; .*$",
    ):
        model.loss(batch, noise)
