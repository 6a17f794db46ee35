"""Activation names -> torch modules."""

from __future__ import annotations

from torch import Tensor, nn

from poolc.spec import Activation


class RReLU(nn.RReLU):
    """Random in training only: otherwise the mean slope, written so that it exports."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.leaky_relu(input, (self.lower + self.upper) / 2)


_MODULES: dict[Activation, type[nn.Module]] = {
    Activation.IDENTITY: nn.Identity,
    Activation.SIGMOID: nn.Sigmoid,
    Activation.TANH: nn.Tanh,
    Activation.RELU: nn.ReLU,
    Activation.GELU: nn.GELU,
    Activation.SILU: nn.SiLU,
    Activation.ELU: nn.ELU,
    Activation.LEAKY_RELU: nn.LeakyReLU,
    Activation.MISH: nn.Mish,
    Activation.SOFTPLUS: nn.Softplus,
    Activation.CELU: nn.CELU,
    Activation.SELU: nn.SELU,
    Activation.RELU6: nn.ReLU6,
    Activation.RRELU: RReLU,
    Activation.HARDSIGMOID: nn.Hardsigmoid,
    Activation.HARDSWISH: nn.Hardswish,
    Activation.HARDTANH: nn.Hardtanh,
    Activation.HARDSHRINK: nn.Hardshrink,
    Activation.SOFTSHRINK: nn.Softshrink,
    Activation.SOFTSIGN: nn.Softsign,
    Activation.TANHSHRINK: nn.Tanhshrink,
    Activation.LOGSIGMOID: nn.LogSigmoid,
}


def activation_module(kind: Activation) -> nn.Module:
    """Return the torch module of an activation; softmax is over the last axis."""
    if kind is Activation.SOFTMAX:
        return nn.Softmax(dim=-1)
    return _MODULES[kind]()
