"""The posteriors of a batch of sequences as one function: all steps forward, then all backward.

What autograd does at every step is done here for all steps at once where it can be: the gradients
of weights are one product each, the slopes of all gates are made before the way back begins, and
nothing is joined that was written to its place at once. For the model of PlaNet and its kin: a GRU
cell, one layer with ReLU before it and one in the posterior, a Gaussian latent. Others take
`RSSM.observe`'s own steps, which have the same numbers up to rounding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from planet_rssm.world_model.products import Product, product

relu_backward = torch.ops.aten.threshold_backward.grad_input


class ScanWeights(NamedTuple):
    """Weights [outputs, inputs] and biases of the steps, all in the precision of the products."""

    of_stoch: Tensor  # the columns for stoch of the layer before the cell
    of_input: Tensor  # of the gates, in nn.GRUCell's order
    input_bias: Tensor
    of_deter: Tensor
    deter_bias: Tensor
    posterior: Tensor  # the columns for deter of the posterior's first layer
    raw: Tensor  # of its last, to mean and raw standard deviation
    raw_bias: Tensor


class Scan(torch.autograd.Function):
    """Filter from the state of zeros, `Scan.apply(...)`.

    Args:
        of_action: [T, B, H], the actions' part of the layer before the cell, with its bias.
        of_embed: [T, B, P], the embeddings' part of the posterior's first layer, with its bias.
        keep: [T, B, 1], 0 where the state is forgotten before the step, else 1.
        noise: standard normal [T, B, S].
        min_std: std = softplus(raw) + min_std.
        by: `fastest` for B rows and each matrix of the weights, in their order.
        weights: those of a `ScanWeights`, without gaps between rows.

    Returns:
        Of all steps, time first: deter [T, B, D], stoch, and the posterior's mean and standard
        deviation, [T, B, S] each.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        of_action: Tensor,
        of_embed: Tensor,
        keep: Tensor,
        noise: Tensor,
        min_std: float,
        by: Sequence[Product],
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        w = ScanWeights(*weights)
        by_stoch, by_input, by_deter, by_posterior, by_raw = by
        kind, (steps, rows, size) = w.of_deter.dtype, noise.shape
        width = w.of_deter.shape[1]
        deters, before, candidates, lefts = noise.new_empty(4, steps, rows, width)
        gates = noise.new_empty(steps, rows, 2 * width)
        stochs, stds, forgotten = noise.new_empty(3, steps, rows, size)
        raws = noise.new_empty(steps, rows, 2 * size)
        inputs = of_action.new_empty(of_action.shape, dtype=kind)
        hidden = of_embed.new_empty(of_embed.shape, dtype=kind)
        deter, stoch = noise.new_zeros(rows, width), noise.new_zeros(rows, size)
        for t in range(steps):
            deter = torch.mul(deter, keep[t], out=before[t])
            stoch = torch.mul(stoch, keep[t], out=forgotten[t])
            x = by_stoch(stoch.to(kind), w.of_stoch, None)
            x = torch.add(x, of_action[t], out=inputs[t]).relu_()
            of_x = by_input(x, w.of_input, w.input_bias)
            of_deter = by_deter(deter.to(kind), w.of_deter, w.deter_bias)
            both = gates[t].copy_(of_x[:, : 2 * width])
            reset, update = both.add_(of_deter[:, : 2 * width]).sigmoid_().split(width, -1)
            left = lefts[t].copy_(of_deter[:, 2 * width :])
            candidate = candidates[t].copy_(of_x[:, 2 * width :])
            candidate.addcmul_(reset, left).tanh_()
            deter = torch.lerp(candidate, deter, update, out=deters[t])
            p = by_posterior(deter.to(kind), w.posterior, None)
            p = torch.add(p, of_embed[t], out=hidden[t]).relu_()
            mean, raw = raws[t].copy_(by_raw(p, w.raw, w.raw_bias)).split(size, -1)
            std = torch.add(softplus(raw.contiguous()), min_std, out=stds[t])
            stoch = torch.addcmul(mean, std, noise[t], out=stochs[t])
        ctx.save_for_backward(
            keep, noise, *weights, deters, before, candidates, lefts, gates, forgotten, raws,
            inputs, hidden,
        )  # fmt: skip
        ctx.dtypes = of_action.dtype, of_embed.dtype
        return deters, stochs, raws[..., :size].contiguous(), stds

    @staticmethod
    @once_differentiable
    def backward(  # noqa: D102
        ctx: Any,  # noqa: ANN401
        of_deters: Tensor,
        of_stochs: Tensor,
        of_means: Tensor,
        of_stds: Tensor,
    ) -> tuple[Tensor | None, ...]:
        keep, noise, *rest = ctx.saved_tensors
        w = ScanWeights(*rest[: len(ScanWeights._fields)])
        deters, before, candidates, lefts, gates, forgotten, raws, inputs, hidden = rest[len(w) :]
        kind, (steps, rows, size) = w.of_deter.dtype, noise.shape
        width = w.of_deter.shape[1]
        reset, update = gates.split(width, -1)
        # The slopes of the next deter in reset, update and candidate, [T, B, 3, D]; `through` are
        # those of the gates' parts of deter.
        slopes = noise.new_empty(steps, rows, 3, width)
        of_reset, of_update, of_candidate = slopes.unbind(2)
        torch.mul(1 - update, 1 - candidates.square(), out=of_candidate)
        torch.mul((before - candidates).mul_(update), 1 - update, out=of_update)
        torch.mul((1 - reset).mul_(reset).mul_(lefts), of_candidate, out=of_reset)
        through = slopes.clone()
        through[:, :, 2] *= reset
        of_raw_std = raws[..., size:].sigmoid()
        raw_rows = noise.new_empty(steps, rows, 2 * size, dtype=kind)
        input_rows = torch.empty_like(inputs)
        hidden_rows = torch.empty_like(hidden)
        gate_rows, deter_rows = slopes.new_empty(2, *slopes.shape, dtype=kind)
        to_deter, to_stoch = torch.zeros_like(deters[0]), torch.zeros_like(noise[0])
        for t in reversed(range(steps)):
            to_stoch = to_stoch + of_stochs[t]
            torch.add(of_means[t], to_stoch, out=raw_rows[t, :, :size])
            of_std = torch.addcmul(of_stds[t], to_stoch, noise[t])
            torch.mul(of_std, of_raw_std[t], out=raw_rows[t, :, size:])
            of_p = product(raw_rows[t], w.raw.t())
            of_p = relu_backward(of_p, hidden[t], 0, grad_input=hidden_rows[t])
            to_deter = to_deter + of_deters[t]
            to_deter += product(of_p, w.posterior.t())
            torch.mul(to_deter[:, None], slopes[t], out=gate_rows[t])
            torch.mul(to_deter[:, None], through[t], out=deter_rows[t])
            of_x = product(gate_rows[t].flatten(1), w.of_input.t())
            of_x = relu_backward(of_x, inputs[t], 0, grad_input=input_rows[t])
            to_deter = (to_deter * update[t]).add_(
                product(deter_rows[t].flatten(1), w.of_deter.t())
            )
            to_deter *= keep[t]
            to_stoch = product(of_x, w.of_stoch.t()) * keep[t]

        def of_weight(outputs: Tensor, read: Tensor) -> Tensor:
            return product(outputs.flatten(0, 1).t(), read.to(kind).flatten(0, 1).t())

        gate_rows, deter_rows = gate_rows.flatten(2), deter_rows.flatten(2)
        of_action, of_embed = ctx.dtypes
        return (
            input_rows.to(of_action),
            hidden_rows.to(of_embed),
            None,
            None,
            None,
            None,
            of_weight(input_rows, forgotten),
            of_weight(gate_rows, inputs),
            gate_rows.sum((0, 1)),
            of_weight(deter_rows, before),
            deter_rows.sum((0, 1)),
            of_weight(hidden_rows, deters),
            of_weight(raw_rows, hidden),
            raw_rows.sum((0, 1)),
        )
