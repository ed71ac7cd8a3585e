"""What actor and critic learn, against closed forms."""

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_are
from torch.special import ndtri

from planet_rssm.base.errors import PlanetError
from planet_rssm.types import State

F64 = torch.float64


def train(behavior, world, states, updates, learn, lr):
    optimizer = torch.optim.Adam([p for p in behavior.parameters() if p.requires_grad], lr=lr)
    for update in range(updates):
        learned = learn(behavior, world, states, seed=update)
        optimizer.zero_grad()
        learned.loss.backward()
        optimizer.step()
        behavior.settle(update + 1, learned.bounds)
    return learned


@pytest.mark.parametrize("baseline", [0.0, 5.0])
def test_reinforce_is_the_gradient_of_a_two_armed_bandit(world, behavior, learn, baseline):
    """d/dlogit_a of sum p r is p_a (r_a - sum p r), whatever the baseline."""
    pays = torch.tensor([1.0, 3.0])
    bandit = world(
        lambda x, a: x, lambda x, a: (a * pays).sum(-1), lambda x: torch.zeros_like(x[..., 0])
    )
    options = (
        "behavior.horizon=1",
        "behavior.entropy=0",
        "behavior.normalise=none",
        "behavior.unimix=0",
        "behavior.critic=gaussian",
        "behavior.slow=none",
    )
    player = behavior("v3", *options, feat=1, actions=2, discrete=True, terminates=True)
    probs = torch.tensor([0.75, 0.25])
    rows = 400
    player.actor.net[-1].bias.data.copy_(probs.log())
    player.actor.net[-1].weight.data.zero_()
    player.critic.net[-1].bias.data.fill_(baseline)
    even = ndtri((torch.arange(rows) + 0.5) / rows).reshape(
        rows, 1, 1
    )  # draws each arm exactly as often as it should
    start = State(torch.ones(rows, 1), torch.zeros(rows, 2))
    noise = type(player.draw(1, 1, torch.Generator(), torch.device("cpu")))(
        even, torch.zeros(rows, 1, 1)
    )
    player.imagined(bandit, start, torch.ones(rows, dtype=torch.bool), noise).loss.backward()
    torch.testing.assert_close(
        -player.actor.net[-1].bias.grad, probs * (pays - (probs * pays).sum())
    )


def test_reinforce_is_the_gradient_of_two_bandits_at_once(world, behavior):
    """Each group gets its own gradient p_a (r_a - sum p r): what the other pays does not differ."""
    pays = torch.tensor([1.0, 3.0, 0.0, 2.0, -1.0])
    bandit = world(
        lambda x, a: x, lambda x, a: (a * pays).sum(-1), lambda x: torch.zeros_like(x[..., 0])
    )
    options = (
        "behavior.horizon=1",
        "behavior.entropy=0",
        "behavior.normalise=none",
        "behavior.unimix=0",
        "behavior.critic=gaussian",
        "behavior.slow=none",
    )
    player = behavior(
        "v3", *options, feat=1, actions=5, discrete=True, groups=(2, 3), terminates=True
    )
    probs = torch.tensor([0.75, 0.25, 0.5, 0.3, 0.2])
    even = ndtri((torch.arange(20) + 0.5) / 20)
    player.actor.net[-1].bias.data.copy_(probs.log())
    player.actor.net[-1].weight.data.zero_()
    player.critic.net[-1].bias.data.fill_(2.0)
    start = State(torch.ones(400, 1), torch.zeros(400, 5))
    drawn = torch.cartesian_prod(even, even)[
        :, None
    ]  # each pair of arms exactly as often as it should
    noise = type(player.draw(1, 1, torch.Generator(), torch.device("cpu")))(
        drawn, torch.zeros(400, 1, 1)
    )
    player.imagined(bandit, start, torch.ones(400, dtype=torch.bool), noise).loss.backward()
    mean = torch.cat(
        [(probs[:2] * pays[:2]).sum().expand(2), (probs[2:] * pays[2:]).sum().expand(3)]
    )
    torch.testing.assert_close(-player.actor.net[-1].bias.grad, probs * (pays - mean))


@pytest.mark.parametrize(("slow", "baseline"), [("target", 0.5), ("regulariser", 2.0)])
def test_the_baseline_is_the_critic_that_returns_are_made_of(world, behavior, slow, baseline):
    """V2's target copy, else the critic: log p of an arm that pays 3 rises by 3 less that."""
    bandit = world(
        lambda x, a: x, lambda x, a: 3 * a[..., 0], lambda x: torch.zeros_like(x[..., 0])
    )
    options = (
        "behavior.objective=reinforce",
        "behavior.horizon=1",
        "behavior.entropy=0",
        "behavior.normalise=none",
        "behavior.unimix=0",
        "behavior.critic=gaussian",
        f"behavior.slow={slow}",
    )
    player = behavior("v2", *options, feat=1, actions=2, discrete=True, terminates=True)
    for net, value in ((player.critic.net, 2.0), (player.critic.slow, 0.5)):
        net[-1].weight.data.zero_()
        net[-1].bias.data.fill_(value)
    player.actor.net[-1].weight.data.zero_()
    player.actor.net[-1].bias.data.zero_()
    noise = type(player.draw(1, 1, torch.Generator(), torch.device("cpu")))(
        torch.full((4, 1, 1), -3.0), torch.zeros(4, 1, 1)
    )
    start = State(torch.ones(4, 1), torch.zeros(4, 2))
    player.imagined(bandit, start, torch.ones(4, dtype=torch.bool), noise).loss.backward()
    torch.testing.assert_close(
        -player.actor.net[-1].bias.grad, (3 - baseline) * torch.tensor([0.5, -0.5])
    )


@pytest.mark.parametrize("objective", ["dynamics", "reinforce", "mix"])
@pytest.mark.parametrize("slow", ["none", "target", "regulariser"])
def test_the_critic_learns_from_its_own_loss_alone(world, behavior, learn, objective, slow):
    """In one step half the squared distance from the return, and from a slow copy, if any."""
    line = world(lambda x, a: x + a, lambda x, a: x[..., 0])
    options = (f"behavior.objective={objective}", f"behavior.slow={slow}", "behavior.horizon=1")
    player = behavior("v1", *options, feat=1, actions=1)
    if slow != "none":
        player.critic.slow[-1].bias.data.fill_(4.0)
    states = torch.randn(5, 1)
    learned = learn(player, line, states)
    learned.loss.backward()
    apart = player.critic(states) - learned.returns[:, 0]
    if slow == "regulariser":
        apart = apart + player.critic(states) - player.critic.slow_value(states)
    torch.testing.assert_close(player.critic.net[-1].bias.grad, apart.mean().detach()[None])
    assert slow == "none" or player.critic.slow[-1].bias.grad is None


@pytest.mark.parametrize("kind", ["tanh_normal", "trunc_normal", "normal"])
def test_the_dynamics_gradient_is_that_of_finite_differences(world, behavior, learn, kind):
    """On a linear world; the actor is a constant: its later features do not count.

    All actions are drawn inside the bounds; see the next test for those beyond.
    """
    a = torch.tensor([[0.9, 0.2], [-0.1, 0.8]], dtype=F64)
    b = torch.tensor([[0.3], [0.5]], dtype=F64)
    linear = world(
        lambda x, u: x @ a.T + u @ b.T, lambda x, u: x @ torch.tensor([1.0, -0.5], dtype=F64)
    )
    player = behavior(
        "v1", f"behavior.action={kind}", "behavior.horizon=4", feat=2, actions=1
    ).double()
    torch.nn.init.normal_(player.critic.net[-1].weight)
    last = player.actor.net[-1]
    last.weight.data.zero_()
    last.bias.data.copy_(torch.tensor([0.3, -2.0 if kind == "trunc_normal" else -6.0]))
    states = torch.randn(5, 2, dtype=F64)
    learn(player, linear, states).loss.backward()
    for weight in (last.weight, last.bias):
        for index in np.ndindex(*weight.shape):
            losses = []
            for step in (1e-5, -1e-5):
                weight.data[index] += step
                losses.append(float(learn(player, linear, states).metrics["loss/actor"]))
                weight.data[index] -= step
            assert float(weight.grad[index]) == pytest.approx(
                (losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-8
            )


def test_an_action_beyond_a_bound_has_a_gradient_by_hand(world, behavior, learn):
    """Of r = a / stopped(max(1, |a|)): 1 / max(1, |a|) times that of a = tanh(m) + std(s) noise."""
    payer = world(lambda x, u: x, lambda x, u: u[..., 0])
    player = behavior(
        "v1", "behavior.action=normal", "behavior.horizon=1", feat=1, actions=1
    ).double()
    player.critic.net[-1].weight.data.zero_()
    last = player.actor.net[-1]
    mean = torch.tensor(0.3, dtype=F64)
    spread = torch.tensor(2.0, dtype=F64)
    last.weight.data.zero_()
    last.bias.data.copy_(torch.stack([mean, spread]))
    rows = 400
    noise = (
        player.draw(rows, 1, torch.Generator().manual_seed(0), torch.device("cpu"))
        .action[:, 0, 0]
        .double()
    )
    learn(player, payer, torch.zeros(rows, 1, dtype=F64)).loss.backward()
    gate = torch.sigmoid(spread + 2)
    action = mean.tanh() + (0.9 * gate + 0.1) * noise
    assert (action.abs() > 1).double().mean() > 0.3
    shrink = 1 / action.abs().clamp(min=1)
    by_mean = (shrink * (1 - mean.tanh() ** 2)).mean()
    by_spread = (shrink * noise * 0.9 * gate * (1 - gate)).mean()
    torch.testing.assert_close(-last.bias.grad, torch.stack([by_mean, by_spread]))


def test_the_actor_is_as_good_as_riccati(world, behavior, learn):
    """Within 5 % of the least discounted cost of a linear system; best actions are below 0.7."""
    a = np.array([[1.0, 0.2], [0.0, 0.9]])
    b = np.array([[0.0], [1.0]])
    q = np.diag([1.0, 0.1])
    r = np.array([[1.0]])
    discount = 0.9
    step = torch.tensor(a)
    into = torch.tensor(b)
    weight = torch.tensor(q)
    # what a step costs is the state that it reaches, and the action
    system = world(
        lambda x, u: x @ step.T + u @ into.T,
        lambda x, u: -(x @ weight * x).sum(-1) - u.square().sum(-1),
    )
    options = (
        "behavior.action=normal",
        "behavior.horizon=12",
        f"behavior.discount={discount}",
        "behavior.units=32",
        "behavior.critic_layers=2",
        "behavior.actor_outscale=0.01",
    )
    player = behavior("v1", *options, feat=2, actions=1).double()
    states = 0.4 * torch.randn(32, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    train(player, system, states, 200, learn, 1e-2)
    least = solve_discrete_are(np.sqrt(discount) * a, np.sqrt(discount) * b, q, discount * r)
    best = (
        (states @ torch.tensor(least - q) * states).sum(-1) / discount
    ).sum()  # the first state costs nothing
    with torch.no_grad():
        state = states
        total = 0.0
        for h in range(100):
            action = player.actor(state).mode.clamp(-1, 1)
            state = state @ step.T + action @ into.T
            total += float(discount**h * ((state @ weight * state).sum() + action.square().sum()))
    assert 0.9999 <= total / float(best) < 1.05


@pytest.mark.parametrize("objective", ["reinforce", "mix"])
def test_the_actor_solves_a_chain(world, behavior, learn, objective):
    """States 0 to 5 in a row, steps left and right: the near end pays 0.2, the far one 1; both
    end the episode.
    """
    count = 6
    discount = 0.9

    def step(x, action):
        place = (x * torch.arange(float(count))).sum(-1) + action[..., 1] - action[..., 0]
        return torch.nn.functional.one_hot(place.long().clamp(0, count - 1), count).float()

    chain = world(
        step, lambda x, a: 0.2 * x[..., 0] + x[..., -1], lambda x: 1 - x[..., 0] - x[..., -1]
    )
    options = (
        f"behavior.objective={objective}",
        f"behavior.discount={discount}",
        "behavior.critic=gaussian",
        "behavior.horizon=6",
        "behavior.slow=none",
        "behavior.unimix=0",
    )
    player = behavior("v3", *options, feat=count, actions=2, discrete=True, terminates=True)
    states = torch.eye(count)[1:-1].repeat(16, 1)
    train(player, chain, states, 150, learn, 0.05)
    assert player.actor(torch.eye(count)[1:-1]).mode.argmax(-1).tolist() == [1, 1, 1, 1]
    values = player.critic(torch.eye(count)[1:-1])
    torch.testing.assert_close(
        values, discount ** torch.tensor([3.0, 2.0, 1.0, 0.0]), atol=0.05, rtol=0
    )


def test_nothing_after_an_end_counts(world, behavior, learn):
    """The value beyond is enormous; the episode ends before it."""
    line = world(lambda x, a: x + 1, lambda x, a: x[..., 0], lambda x: (x[..., 0] < 2).to(x))
    player = behavior(
        "v1", "behavior.horizon=4", "behavior.trace=1", feat=1, actions=1, terminates=True
    )
    player.critic.net[-1].bias.data.fill_(1e6)
    learned = learn(player, line, torch.tensor([[0.0], [1.0]]))
    assert learned.returns[:, 0].tolist() == pytest.approx([1 + 0.99 * 2, 2])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("reached", [1.0, 0.99 * 0.8, 0.99**2 * 0.8 * 0.7]),
        ("head", [0.9, 0.9 * 0.99 * 0.8, 0.9 * 0.99**2 * 0.8 * 0.7]),
        ("late", [1.0, 0.99 * 0.9, 0.99**2 * 0.9 * 0.8]),
    ],
)
def test_steps_weigh_by_hand(world, behavior, learn, weights, expected):
    """It continues with 0.9 at the start, then 0.8 and 0.7; a critic of 0 loses half a reward²."""
    chances = torch.tensor([0.9, 0.8, 0.7, 0.6])
    losses = []
    for paid in (1, 2, 3):  # the reward came with the state after the step
        line = world(
            lambda x, a: x + 1,
            lambda x, a, paid=paid: (x[..., 0] == paid).float(),
            lambda x: chances[x[..., 0].long()],
        )
        options = (f"behavior.weights={weights}", "behavior.horizon=3", "behavior.trace=0")
        player = behavior("v1", *options, feat=1, actions=1, terminates=True)
        player.critic.net[-1].weight.data.zero_()
        player.critic.net[-1].bias.data.zero_()
        losses.append(3 * 2 * float(learn(player, line, torch.zeros(5, 1)).metrics["loss/critic"]))
    assert losses == pytest.approx(expected)


@pytest.mark.parametrize("weighed", [True, False])
def test_an_entropy_that_is_not_weighed_counts_alike_at_every_step(world, behavior, learn, weighed):
    ends = world(
        lambda x, a: x, lambda x, a: 0 * x[..., 0], lambda x: torch.full_like(x[..., 0], 0.5)
    )
    options = (
        f"behavior.weigh_entropy={str(weighed).lower()}",
        "behavior.horizon=2",
        "behavior.entropy=0.1",
        "behavior.objective=reinforce",
    )
    player = behavior("v1", *options, feat=1, actions=1, terminates=True)
    player.critic.net[-1].bias.data.zero_()
    states = torch.zeros(4, 1)
    entropy = float(player.actor(states[:1]).entropy.detach())
    learned = learn(player, ends, states, alive=torch.tensor([True, True, True, False]))
    share = (1 + 0.99 * 0.5) / 2 if weighed else 1.0
    assert float(learned.metrics["loss/actor"]) == pytest.approx(-0.1 * entropy * share)


def test_the_critics_value_may_be_taken_off_with_its_gradient(world, behavior, learn):
    """x' = x + a pays x'; the critic's value is 0.5 x. Two steps from 0, lambda 1, discount 0.99:

    R_0 = (1 + 0.99 (1 + 0.5 * 0.99)) a_0 + ..., R_1 = (1 + 0.5 * 0.99) a_0 + ..., and v(x_1) = 0.5
    a_0 is taken off.
    """
    line = world(lambda x, a: x + a, lambda x, a: x[..., 0])
    slopes = {}
    for subtract in ("false", "true"):
        options = (
            f"behavior.subtract_value={subtract}",
            "behavior.horizon=2",
            "behavior.trace=1",
            "behavior.action=normal",
        )
        player = behavior("v1", *options, feat=1, actions=1).double()
        player.critic.net[-1].weight.data.fill_(0.5)
        player.critic.net[-1].bias.data.zero_()
        last = player.actor.net[-1]
        last.weight.data.zero_()
        last.bias.data.copy_(
            torch.tensor([0.0, -50.0])
        )  # a mean of 0, a spread of 0.1: nothing beyond the bounds
        learn(player, line, torch.zeros(8, 1, dtype=F64)).loss.backward()
        slopes[subtract] = float(-last.bias.grad[0])
        assert float(player.critic.net[-1].weight.grad) != 0
    # of R_0; R_1 counts 0.99 of the same
    by_a0 = 1 + 0.99 * 1.495
    by_a1 = 0.99 * 1.495
    total = (by_a0 + by_a1 + 0.99 * 2 * 1.495) / 2
    assert slopes["false"] == pytest.approx(total)
    assert slopes["true"] == pytest.approx(total - 0.99 * 0.5 / 2)


def test_starts_that_are_no_beginnings_count_nothing(world, behavior, learn):
    walk = world(lambda x, a: x + a, lambda x, a: -x[..., 0].square())
    player = behavior("v3", feat=1, actions=1)
    alive = torch.tensor([True, True, False])
    near, far = (
        learn(player, walk, torch.tensor([[0.5], [-0.5], [third]]), alive=alive)
        for third in (0.0, 9e9)
    )
    assert torch.equal(near.loss, far.loss) and torch.equal(near.bounds, far.bounds)


@pytest.mark.parametrize(("name", "overrides"), [("v2", ["behavior.slow_every=3"]), ("v3", [])])
def test_the_slow_critic_follows_exactly(behavior, name, overrides):
    player = behavior(name, *overrides, feat=2, actions=1)
    wanted = player.critic.slow[-1].weight.clone()
    for update in range(1, 7):
        torch.nn.init.normal_(player.critic.net[-1].weight)
        player.settle(update, torch.zeros(2))
        if name == "v3":
            wanted = 0.98 * wanted + 0.02 * player.critic.net[-1].weight
        elif update % 3 == 0:
            wanted = player.critic.net[-1].weight.clone()
        torch.testing.assert_close(
            player.critic.slow[-1].weight, wanted, rtol=0, atol=1e-6 if name == "v3" else 0
        )


@pytest.mark.parametrize("name", ["v1", "v2", "v3"])
def test_no_gradient_reaches_the_world(world, behavior, learn, name):
    push = torch.nn.Parameter(torch.tensor(0.5))
    walk = world(lambda x, a: x + push * a, lambda x, a: -(x[..., 0] + push).square())
    walk.push = push
    player = behavior(name, "behavior.units=8", feat=1, actions=1)
    learn(player, walk, torch.randn(4, 1)).loss.backward()
    assert push.grad is None and push.requires_grad
    assert all(p.grad is not None for p in player.actor.parameters())


def test_the_advantage_is_divided_by_the_range_of_returns(world, behavior, learn):
    walk = world(lambda x, a: x + a, lambda x, a: 1000 * x[..., 0])
    player = behavior("v3", feat=1, actions=1)
    player.bounds.copy_(torch.tensor([-500.0, 500.0]))
    learned = learn(player, walk, torch.randn(64, 1))
    assert float(learned.metrics["behavior/advantage_scale"]) == pytest.approx(
        float(learned.bounds[1] - learned.bounds[0])
    )


def test_choices_have_no_dynamics_gradient(behavior):
    with pytest.raises(
        PlanetError, match="behavior.objective = 'dynamics': gym/T-v0 has 2 choices.*behavior=v3"
    ):
        behavior("v1", feat=1, actions=2, discrete=True)
