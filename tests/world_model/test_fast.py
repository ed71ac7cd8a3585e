"""The packed model predicts what the model does, of every latent and cell, also as it learns."""

import pytest
import torch

from planet_rssm.types import State
from planet_rssm.world_model import ModelDynamics, WorldModel, packed_layers
from planet_rssm.world_model.packed_layers import PackedLinear
from planet_rssm.world_model.packed_model import FastDynamics
from planet_rssm.world_model.packed_step import FusedStep, gru
from planet_rssm.world_model.tanh import FEW, tanh_

B, N, H, A = 2, 7, 4, 2
CASES = {
    "planet": ("planet",),
    "deeper": (
        "planet",
        "rssm.recurrent_depth=2",
        "rssm.input_layers=2",
        "model.act=silu",
        "rssm.act=silu",
    ),
    "normed": ("planet", "rssm.norm=layer", "rssm.act=elu"),
    "mode": ("planet", "rssm.plan_by=mode"),
    "ssm": ("planet", "rssm.kind=ssm"),
    "rnn": ("planet", "rssm.kind=rnn"),
    "discrete": ("planet-discrete", "rssm.unimix=0.1"),
    "discrete mode": ("planet-discrete", "rssm.plan_by=mode"),
    "discrete ssm": ("planet-discrete", "rssm.kind=ssm"),
    "no inputs": ("planet", "rssm.input_layers=0"),
    "tf_gru": ("planet", "rssm.cell=tf_gru"),
    "deeper tf_gru": (
        "planet-discrete",
        "rssm.cell=tf_gru",
        "rssm.recurrent_depth=2",
        "rssm.input_layers=2",
    ),
    "tf_gru without inputs": ("planet", "rssm.cell=tf_gru", "rssm.input_layers=0"),
    "norm_gru": ("planet-discrete", "rssm.cell=norm_gru", "rssm.norm=layer", "rssm.act=elu"),
    "dreamer-v3": ("dreamer-v3", "rssm.blocks=2"),
    "patches": ("quickstart", "model.conv=patches"),
    "linear head": ("planet", "model.reward_layers=0"),
}


pytestmark = pytest.mark.usefixtures("one_thread_and_seed")


@pytest.fixture(params=CASES.values(), ids=CASES)
def any_model(request, model) -> WorldModel:
    return model(*request.param)


def inputs_of(
    made: WorldModel, dtype: torch.dtype = torch.float32
) -> tuple[State, torch.Tensor, torch.Tensor | None]:
    rng = torch.Generator().manual_seed(1)
    rssm = made.rssm
    with torch.no_grad():
        deter = torch.randn(B, rssm.deter_size, generator=rng, dtype=dtype).tanh()
        stoch = rssm.latent.sample(
            rssm.prior(deter), torch.randn(B, rssm.noise_size, generator=rng, dtype=dtype)
        )
    shape = ModelDynamics(made).noise_shape(B, N, H)
    noise = None if shape is None else torch.randn(shape, generator=rng, dtype=dtype)
    return State(deter, stoch), torch.rand(B, N, H, A, generator=rng, dtype=dtype) * 2 - 1, noise


def assert_same(one, other, **tolerance: float) -> None:
    for left, right in zip((*one[:2], *one.last), (*other[:2], *other.last), strict=True):
        torch.testing.assert_close(left, right, **tolerance)


def test_in_float32_it_is_the_plain_path_within_rounding(any_model):
    plain = ModelDynamics(any_model)
    with torch.no_grad():
        expected = plain.rollout(*inputs_of(any_model))
    assert_same(
        plain.prepare("float32").rollout(*inputs_of(any_model)), expected, rtol=1e-4, atol=1e-5
    )


def test_in_float64_it_is_the_plain_path(any_model):
    any_model.double()
    inputs = inputs_of(any_model, torch.float64)
    with torch.no_grad():
        expected = ModelDynamics(any_model).rollout(*inputs)
    assert_same(FastDynamics(any_model, "float32").rollout(*inputs), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [B, 1])
def test_the_forms_of_a_cuda_device_are_the_plain_path(any_model, rows, monkeypatch):
    """Its kernel of a GRU's gates, which a CPU has not, is written out."""
    made = FusedStep.__init__

    def there(self, *arguments):
        made(self, *arguments)
        self.reads_ahead, self.has_kernel = True, self.of_reset is None

    def kernel(inputs, gates, deter):
        assert len(inputs) == len(gates) == len(deter) and gates.shape == inputs.shape
        return gru(inputs.clone(), gates, deter), None

    monkeypatch.setattr(FusedStep, "__init__", there)
    monkeypatch.setattr(torch.ops.aten, "_thnn_fused_gru_cell", kernel)
    any_model.double()
    state, actions, noise = inputs_of(any_model, torch.float64)
    inputs = (
        State(*(part[:rows] for part in state)),
        actions[:rows],
        None if noise is None else noise[:rows],
    )
    with torch.no_grad():
        expected = ModelDynamics(any_model).rollout(*inputs)
    assert_same(FastDynamics(any_model, "float32").rollout(*inputs), expected, rtol=1e-6, atol=1e-6)


def test_in_bfloat16_it_differs_by_bfloat16s_rounding(model):
    made = model("planet")
    inputs = inputs_of(made)
    with torch.no_grad():
        expected = ModelDynamics(made).rollout(*inputs)
    fast = FastDynamics(made, "bfloat16").rollout(*inputs)
    assert {leaf.dtype for leaf in (*fast[:2], *fast.last)} == {torch.float32}
    assert_same(fast, expected, rtol=0.05, atol=0.05)
    assert not torch.equal(fast.reward, expected.reward)


def test_the_model_is_left_as_it_was(any_model):
    before = {name: value.clone() for name, value in any_model.state_dict().items()}
    FastDynamics(any_model, "bfloat16").rollout(*inputs_of(any_model))
    after = any_model.state_dict()
    assert before.keys() == after.keys()
    assert all(
        after[name].dtype == value.dtype and torch.equal(after[name], value)
        for name, value in before.items()
    )
    assert all(parameter.requires_grad for parameter in any_model.parameters())


@pytest.mark.parametrize("case", ["planet", "discrete", "dreamer-v3"])
def test_few_candidates_at_a_time_change_nothing(model, case):
    made = model(*CASES[case])
    inputs = inputs_of(made)
    together, split = (
        FastDynamics(made, "float32", memory).rollout(*inputs) for memory in (None, 20_000)
    )
    assert_same(split, together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("case", ["planet", "discrete", "dreamer-v3"])
def test_the_states_on_the_way_are_returned(model, case, memory):
    made = model(*CASES[case])
    inputs = inputs_of(made)
    with torch.no_grad():
        expected = ModelDynamics(made).trace(*inputs)
    result = FastDynamics(made, "float32", memory).trace(*inputs)
    assert_same(result, expected, rtol=1e-4, atol=1e-5)
    for left, right in zip(result.states, expected.states, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_candidates_are_split_where_memory_says(model, monkeypatch):
    made = model("planet")
    counts = []
    fast = FastDynamics(made, "float32", 1)
    rollout = fast.packed.rollout
    monkeypatch.setattr(
        fast.packed, "rollout", lambda *args: counts.append(args[1].shape[1]) or rollout(*args)
    )
    fast.rollout(*inputs_of(made))
    assert counts == [1] * N


def test_it_follows_a_model_that_learns_and_refresh_takes_up_what_is_not_counted(model):
    made = model("planet")
    inputs = inputs_of(made)
    fast = ModelDynamics(made).prepare("float32")
    before, packed = fast.rollout(*inputs).reward, fast.packed
    assert (
        torch.equal(fast.rollout(*inputs).reward, before) and fast.packed is packed
    )  # not packed anew for nothing
    ModelDynamics(made).rollout(*inputs).reward.sum().backward()
    with torch.no_grad():
        for parameter in made.reward.parameters():
            parameter.add_(parameter.grad)
    learned = fast.rollout(*inputs).reward
    with torch.no_grad():
        torch.testing.assert_close(learned, ModelDynamics(made).rollout(*inputs).reward)
    assert not torch.allclose(learned, before)
    for parameter in made.parameters():
        parameter.data.mul_(0.5)  # PyTorch does not count this
    assert torch.equal(fast.rollout(*inputs).reward, learned)
    fast.refresh()
    with torch.no_grad():
        torch.testing.assert_close(
            fast.rollout(*inputs).reward, ModelDynamics(made).rollout(*inputs).reward
        )


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_refresh_takes_up_the_step_of_a_fused_optimiser(model, kind):
    made = model("planet")
    inputs = inputs_of(made)
    fast = FastDynamics(made, "float32")
    before, packed = fast.rollout(*inputs).reward, fast.packed
    fast.refresh()
    assert fast.packed is packed
    ModelDynamics(made).rollout(*inputs).reward.sum().backward()
    kind(made.parameters(), lr=0.1, fused=True).step()
    fast.refresh()
    learned = fast.rollout(*inputs).reward
    with torch.no_grad():
        torch.testing.assert_close(
            learned, ModelDynamics(made).rollout(*inputs).reward, rtol=1e-4, atol=1e-4
        )
    assert not torch.allclose(learned, before)


def test_it_follows_parameters_that_take_the_place_of_others(model):
    made = model("planet")
    inputs = inputs_of(made)
    fast = FastDynamics(made, "float32")
    made.load_state_dict(
        {name: value * 0.5 for name, value in made.state_dict().items()}, assign=True
    )
    with torch.no_grad():
        assert_same(
            fast.rollout(*inputs), ModelDynamics(made).rollout(*inputs), rtol=1e-4, atol=1e-5
        )


def test_autocast_around_it_changes_nothing(model):
    made = model("planet")
    inputs = inputs_of(made)
    fast = FastDynamics(made, "float32")
    with torch.autocast("cpu", torch.bfloat16):
        inside = fast.rollout(*inputs).reward
    assert torch.equal(inside, fast.rollout(*inputs).reward)


@pytest.mark.parametrize("onednn", [False, True])
def test_products_by_pytorch_and_by_onednn_are_the_models(model, monkeypatch, onednn):
    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    made = model("planet")
    inputs = inputs_of(made)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    monkeypatch.setattr(packed_layers, "pays", lambda: True)
    fast = FastDynamics(made, "float32")
    assert isinstance(fast.packed.step, FusedStep)
    assert (fast.packed.step.of_x.blocked is not None) == onednn
    with torch.no_grad():
        assert_same(
            fast.rollout(*inputs), ModelDynamics(made).rollout(*inputs), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("act", [torch.nn.ReLU, torch.nn.SiLU])
def test_an_activation_is_done_within_the_product(act, monkeypatch):
    monkeypatch.setattr(packed_layers, "pays", lambda: True)
    layer = PackedLinear(torch.randn(5, 3), torch.randn(5), torch.float32)
    x = torch.randn(4, 3)
    plain = layer(x)
    assert layer.fuse(act) or layer.blocked is None and act is not torch.nn.ReLU
    if (
        act is torch.nn.ReLU or layer.blocked is not None
    ):  # others where the processor has such products
        torch.testing.assert_close(layer(x), act()(plain))
    assert not layer.fuse(torch.nn.ELU)


@pytest.mark.parametrize("rows", [6, 2, 1])
def test_gates_made_apart_are_those_of_the_cell(rows):
    """Each row of deter is for one of the inputs, or for several; more columns change nothing."""
    cell = torch.nn.GRUCell(3, 4, dtype=torch.float64).requires_grad_(False)
    x, deter = torch.randn(6, 3, dtype=torch.float64), torch.randn(rows, 4, dtype=torch.float64)
    hidden = torch.cat(
        [deter @ cell.weight_hh.t() + cell.bias_hh, torch.randn(rows, 5, dtype=torch.float64)], 1
    )
    result = gru(x @ cell.weight_ih.t() + cell.bias_ih, hidden, deter)
    torch.testing.assert_close(result, cell(x, deter.repeat_interleave(6 // rows, 0)))


@pytest.mark.parametrize("count", [FEW - 1, FEW])
def test_tanh_of_few_and_of_many(count):
    x = torch.linspace(-4, 4, count)[None]
    torch.testing.assert_close(tanh_(x.clone()), torch.tanh(x))


@pytest.mark.parametrize("part", ["prior_net", "core"])
@pytest.mark.parametrize(
    "case", ["planet", "mode", "ssm", "discrete", "discrete mode", "discrete ssm", "norm_gru"]
)
def test_what_is_nan_on_the_plain_path_is_nan_here(model, case, part):
    """One weight of the prior, or of what leads to it, is NaN: no class and no ReLU may hide it."""
    made = model(*CASES[case])
    with torch.no_grad():
        list(getattr(made.rssm, part).parameters())[0 if part == "core" else -1].view(-1)[0] = (
            torch.nan
        )
        inputs = inputs_of(made)
        inputs = (State(*(torch.zeros_like(leaf) for leaf in inputs[0])), *inputs[1:])
        expected = ModelDynamics(made).rollout(*inputs)
        result = FastDynamics(made, "float32").rollout(*inputs)
    assert expected.reward.isnan().any()
    assert torch.equal(result.reward.isnan(), expected.reward.isnan())
    assert torch.equal(result.last.stoch.isnan().any(-1), expected.last.stoch.isnan().any(-1))
