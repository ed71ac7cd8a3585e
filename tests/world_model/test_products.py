"""Products by oneDNN: PyTorch's numbers and gradients, of views too, and where they are used."""

import pytest
import torch
from torch import Tensor, nn

from planet_rssm.world_model import products
from planet_rssm.world_model.networks import mlp
from planet_rssm.world_model.products import Linear, linear, product

pytestmark = pytest.mark.usefixtures("one_thread_and_seed")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
ROWS, IN, OUT = 64, 200, 120


@pytest.fixture(autouse=True)
def pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where oneDNN is faster."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("no oneDNN in this build of PyTorch")
    monkeypatch.setattr(products, "pays", lambda: True)


def gradients(y: Tensor, of: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * y).sum(), of)


@pytest.mark.parametrize("lead", [(ROWS,), (4, 16), ()])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_pytorchs(lead: tuple[int, ...], bias: bool) -> None:
    ours = Linear(IN, OUT, bias=bias)
    plain = nn.Linear(IN, OUT, bias=bias)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(*lead, IN, requires_grad=True)
    assert ours(x).shape == plain(x).shape
    torch.testing.assert_close(ours(x), plain(x), **CLOSE)
    mine = gradients(ours(x), (x, *ours.parameters()))
    theirs = gradients(plain(x), (x, *plain.parameters()))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_views_are_read_as_they_lie() -> None:
    wide, tall = torch.randn(ROWS, 2 * IN), torch.randn(IN, ROWS)
    weights = torch.randn(OUT, 2 * IN)
    for x in (wide[:, IN:], tall.t(), wide[:, ::2]):  # with gaps oneDNN would take seconds
        for weight in (weights[:, IN:], weights[:, ::2]):
            torch.testing.assert_close(product(x, weight), x @ weight.t(), **CLOSE)


def test_an_expanded_gradient_is_taken_in_full() -> None:
    x, weight = torch.randn(ROWS, IN), torch.randn(OUT, IN, requires_grad=True)
    (ours,) = torch.autograd.grad(linear(x, weight).sum(), weight)
    torch.testing.assert_close(ours, x.sum(0).expand(OUT, -1), **CLOSE)


def test_only_large_products_of_float32_take_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    own = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn,
        "_linear_pointwise",
        lambda *words, **more: taken.append(words) or own(*words, **more),
    )
    large, small = torch.randn(ROWS, IN), torch.randn(2, IN)
    layer = Linear(IN, OUT)
    layer(large)
    assert len(taken) == 1
    layer(small)
    layer.double()(large.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(large).dtype == torch.bfloat16
    monkeypatch.setattr(products, "pays", lambda: False)
    layer(large)
    assert len(taken) == 1


def test_networks_are_made_of_it() -> None:
    assert all(
        isinstance(part, Linear) for part in mlp(3, 4, 1, 2) if not isinstance(part, nn.ReLU)
    )
