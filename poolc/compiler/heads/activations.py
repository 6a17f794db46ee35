"""Activation names -> torch modules."""

from __future__ import annotations

from torch import nn

from poolc.spec import Activation

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
    if kind is Activation.RRELU:  # random in training only; then its mean slope, which exports
        random = nn.RReLU()
        return nn.LeakyReLU((random.lower + random.upper) / 2)
    return _MODULES[kind]()
