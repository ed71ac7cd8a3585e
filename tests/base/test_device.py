import warnings

import pytest
import torch

from planet_rssm.base.device import resolve_device
from planet_rssm.base.errors import PlanetError


def test_auto_and_cpu_are_usable_everywhere():
    assert resolve_device("auto").type in ("cpu", "cuda")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    "name", ["meta", "hpu", "mkldnn", "privateuseone", "mtia", "gpu", "CPU", "", "0"]
)
def test_what_holds_no_tensors_of_ours_is_refused_in_one_line(name):
    with warnings.catch_warnings(), pytest.raises(PlanetError) as caught:
        warnings.simplefilter("error")
        resolve_device(name)
    assert str(caught.value) == f"device {name!r}: not one of cpu, cuda, mps, xpu; use auto or cpu"


@pytest.mark.parametrize(
    "name", ["cuda:77", "xpu:77", "mps:77", "cpu:x", "cuda:-1", "cuda:99999999999999999999"]
)
def test_what_is_not_here_is_refused_in_one_line(name):
    with pytest.raises(
        PlanetError, match=r"^device '.*': not usable here \(.*\); use auto or cpu$"
    ) as caught:
        resolve_device(name)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'torch_x'"), ImportError("half a plug-in")]
)
def test_a_backend_that_cannot_be_imported_is_refused_in_one_line(error, monkeypatch):
    def missing(*_, **__):
        raise error

    monkeypatch.setattr(torch, "empty", missing)
    with pytest.raises(PlanetError, match="^device 'xpu': not usable here .*; use auto or cpu$"):
        resolve_device("xpu")
