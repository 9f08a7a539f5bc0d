"""Rules of parameters and buffers that `forward` reads besides calling their module."""

from typing import Any

from torch import Tensor, fx, nn

from prunas.tracing.labels import Bare, Channels
from prunas.tracing.operations import BINARY, CONVOLUTIONS, NORMS, functional, operation, where
from prunas.tracing.state import PassState

__all__ = ["hold_reduced", "read"]

LAYERS = (*CONVOLUTIONS, *NORMS, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.PReLU)


def read(state: PassState, node: fx.Node, value: Any) -> Bare | None:
    """A parameter, buffer or constant of the network; a layer's is held with the whole layer."""
    path, _, name = str(node.target).rpartition(".")
    if isinstance(state.modules.get(path), LAYERS) and not all(
        functional(user, state.modules) == path for user in node.users
    ):
        state.ledger.forbid(path, f"forward reads its {name} besides calling it", where(node))
    owner = state.modules.get(path, state.net)
    if name not in owner._parameters and (
        name not in owner._buffers or name in owner._non_persistent_buffers_set
    ):
        state.ledger.keep_whole(str(node.target), f"{node.target} is not in the state dict", where(node))
    return Bare(str(node.target), value) if isinstance(value, Tensor) else None


def hold_reduced(state: PassState, node: fx.Node) -> None:
    """Holds parameters and buffers that a node reads in another way than channel by channel.

    Their mean, say, is another one where there are fewer of them.
    """
    for before in node.all_input_nodes:
        labels, name = state.labels[before], operation(node)
        if isinstance(labels, Bare) and not (name in BINARY and isinstance(state.labels[node], Channels)):
            state.ledger.keep_whole(labels.name, f"{name} reads {labels.name} as a whole", where(node))
