"""Gathered gradients are autograd's, for every recurrent core."""

import pytest
import torch

from planet_rssm.config import RSSMSettings
from planet_rssm.world_model.recurrence import _Gates, gathered
from planet_rssm.world_model.rssm import RSSM

B, T, A, E = 3, 5, 2, 7
CORES = {
    "gru": {},
    "gru twice": {"recurrent_depth": 2},
    "tf_gru": {"cell": "tf_gru"},
    "norm_gru": {"cell": "norm_gru", "norm": "layer"},
    "blocks": {"blocks": 2, "norm": "rms", "act": "silu"},
    "no recurrence": {"kind": "ssm"},
}


@pytest.mark.parametrize("core", CORES)
def test_gradients_are_those_of_autograd(core, monkeypatch):
    settings = RSSMSettings(deter=8, hidden=6, stoch=4, **CORES[core])
    rssm = RSSM(settings, A, E).double()
    rng = torch.Generator().manual_seed(0)
    embed, action, noise = (
        torch.randn(B, T, n, generator=rng, dtype=torch.float64, requires_grad=True)
        for n in (E, A, rssm.noise_size)
    )
    is_first = torch.zeros(B, T, dtype=torch.bool)
    is_first[:, 0] = is_first[1, 3] = True

    def gradients():
        states, posterior = rssm.observe(embed, action, is_first, noise)
        loss = sum(part.square().sum() for part in (*states, *posterior))
        inputs = [*rssm.parameters(), embed, action]
        return loss, torch.autograd.grad(loss, inputs, allow_unused=True)

    monkeypatch.setattr(RSSM, "_scans", False)
    loss, ours = gradients()
    monkeypatch.setattr("planet_rssm.world_model.recurrence._takes_part", lambda part: False)
    monkeypatch.setattr("planet_rssm.world_model.rssm.gathered_linear", plain)
    plainly, theirs = gradients()
    torch.testing.assert_close(loss, plainly, rtol=1e-14, atol=0)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_scan_is_the_steps_of_autograd(monkeypatch):
    rssm = RSSM(RSSMSettings(deter=8, hidden=6, stoch=4), A, E).double()
    assert rssm._scans
    rng = torch.Generator().manual_seed(0)
    embed, action, noise = (
        torch.randn(B, T, n, generator=rng, dtype=torch.float64, requires_grad=True)
        for n in (E, A, rssm.noise_size)
    )
    is_first = torch.zeros(B, T, dtype=torch.bool)
    is_first[:, 0] = is_first[1, 3] = True
    weight = torch.randn(B, T, 8 + 3 * 4, generator=rng, dtype=torch.float64)

    def gradients():
        states, posterior = rssm.observe(embed, action, is_first, noise.detach())
        loss = (torch.cat([*states, *posterior], -1) * weight).square().sum()
        inputs = [*rssm.core.parameters(), *rssm.posterior_net.parameters(), embed, action]
        return states, posterior, torch.autograd.grad(loss, inputs)

    ours = gradients()
    monkeypatch.setattr(RSSM, "_scans", False)
    monkeypatch.setattr("planet_rssm.world_model.recurrence._takes_part", lambda part: False)
    monkeypatch.setattr("planet_rssm.world_model.rssm.gathered_linear", plain)
    theirs = gradients()
    for mine, other in zip(ours, theirs, strict=True):
        for one, another in zip(mine, other, strict=True):
            torch.testing.assert_close(one, another, rtol=1e-10, atol=1e-12)


def test_a_scan_in_bfloat16_is_near_that_of_float32():
    rssm = RSSM(RSSMSettings(deter=8, hidden=6, stoch=4), A, E)
    embed, action, noise = (torch.randn(B, T, n) for n in (E, A, rssm.noise_size))
    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = True
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            states, _ = rssm.observe(embed, action, first, noise)
        (gradient,) = torch.autograd.grad(
            rssm.feat(states).square().sum(), rssm.core.cell.weight_hh
        )
        assert states.deter.dtype == gradient.dtype == torch.float32
        results.append((rssm.feat(states), gradient))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.05)


def plain(weight, bias):
    return lambda x: torch.nn.functional.linear(x, weight, bias)


def test_gates_are_those_of_the_cell():
    cell = torch.nn.GRUCell(3, 4).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    deter = torch.randn(2, 4, dtype=torch.float64)

    def gates(x, deter):
        linear = torch.nn.functional.linear
        inputs = linear(x, cell.weight_ih, cell.bias_ih)
        return _Gates.apply(inputs, linear(deter, cell.weight_hh, cell.bias_hh), deter)

    torch.testing.assert_close(gates(x, deter), cell(x, deter))
    assert torch.autograd.gradcheck(gates, (x.requires_grad_(), deter.requires_grad_()))


def test_without_gradients_nothing_is_gathered(monkeypatch):
    rssm = RSSM(RSSMSettings(deter=8, hidden=6, stoch=4), A, E)
    monkeypatch.delattr("planet_rssm.world_model.recurrence._takes_part")
    with torch.no_grad():
        first = torch.ones(B, T, dtype=torch.bool)
        rssm.observe(torch.zeros(B, T, E), torch.zeros(B, T, A), first, None)


def test_modules_are_as_before_afterwards():
    layer = torch.nn.Linear(2, 2)
    with gathered(layer):
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)
    with pytest.raises(RuntimeError), gathered(layer):
        raise RuntimeError
    assert "forward" not in vars(layer)


def test_a_pass_that_asks_for_no_weights_leaves_nothing_to_the_next():
    rssm = RSSM(RSSMSettings(deter=8, hidden=6, stoch=4), A, E).double()
    embed = torch.randn(B, T, E, dtype=torch.float64, requires_grad=True)
    action = torch.randn(B, T, A, dtype=torch.float64)

    def loss():
        states, _ = rssm.observe(embed, action, torch.zeros(B, T, dtype=torch.bool), None)
        return rssm.feat(states).square().sum()

    once = torch.autograd.grad(loss(), rssm.core.cell.weight_hh)
    value = loss()
    torch.autograd.grad(value, embed, retain_graph=True)
    for _ in range(2):
        again = torch.autograd.grad(value, rssm.core.cell.weight_hh, retain_graph=True)
        torch.testing.assert_close(again, once)
