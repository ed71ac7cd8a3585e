"""The hyperbolic tangent by what is fast on the processor."""

import torch
from torch import Tensor

# Of fewer numbers than these PyTorch's own tanh takes less time than the way to oneDNN's and back.
FEW = 2**14


def tanh_(x: Tensor) -> Tensor:
    """Return tanh(x), perhaps in place, by what takes the least time on this processor.

    For many numbers: with AVX-512 oneDNN's takes a third of the time of PyTorch's, with AVX2 twice
    as much; there 2 sig(2x) - 1 takes half, with an error of at most 2e-7.
    """
    if x.numel() < FEW or x.device.type != "cpu" or x.dtype == torch.float64:
        return x.tanh_()
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        by_onednn = torch.backends.mkldnn.is_available() and x.dtype != torch.float16
        return x.to_mkldnn().tanh_().to_dense() if by_onednn else x.tanh_()
    return x.mul_(2).sigmoid_().mul_(2).sub_(1) if x.dtype == torch.float32 else x.tanh_()
