"""What the processes of a training on several devices add up, so that they train as one process would.

Inside `as_one` losses are divided by what all processes count, and batch norms see the batch of all. A process's loss
is then so large that the mean over processes, which is what their gradients are averaged as, is the loss of the whole
batch. Elsewhere each process is alone, so that one may go on when the others have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_joined: ContextVar[bool] = ContextVar("joined", default=False)


def rank_of_all() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    ready = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if ready else (0, 1)


@contextmanager
def as_one() -> Iterator[None]:
    """Steps that all processes take at once, with parts of one batch each."""
    if rank_of_all()[1] == 1:
        yield
        return
    token = _joined.set(True)
    try:
        with _Norms():
            yield
    finally:
        _joined.reset(token)


def sum_of_all(x: Tensor) -> Tensor:
    """The sum of a tensor over the processes; gradients reach the parts of all of them."""
    if not _joined.get():
        return x
    from torch.distributed.nn.functional import all_reduce

    summed: Tensor = all_reduce(x.clone())  # type: ignore[no-untyped-call] # torch leaves it untyped
    return summed


def share(count: Tensor) -> Tensor:
    """What a process's sum is divided by for a mean over all: the mean of their counts."""
    return sum_of_all(count.detach().float()) / rank_of_all()[1] if _joined.get() else count


def mean_of_all(x: Tensor) -> Tensor:
    """The mean of a tensor over the values of all processes, see `share`."""
    return x.sum() / share(x.new_tensor(x.numel())) if _joined.get() else x.mean()


class _Norms(TorchFunctionMode):
    """Batch norms by the statistics of the batch of all processes, whichever module asks for them.

    torch's `SyncBatchNorm` does so on graphics cards alone.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Any function of torch; `batch_norm` by ours."""
        return (_batch_norm if func is functional.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `functional.batch_norm` (Ioffe and Szegedy 2015, arXiv:1502.03167), over the batch of all processes."""
    if not training:
        return functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    axes = [0, *range(2, x.ndim)]
    values = x.float()
    count = sum_of_all(values.new_tensor(float(x.numel() // x.shape[1])))
    middle = sum_of_all(values.sum(axes)) / count  # (C,)
    apart = values - _over(middle, x)
    var = sum_of_all(apart.square().sum(axes)) / count
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(middle.detach().to(running_mean.dtype), momentum)
        running_var.lerp_((var.detach() * count / (count - 1)).to(running_var.dtype), momentum)
    out = apart * _over((var + eps).rsqrt(), x)
    if weight is not None:
        out = out * _over(weight, x)
    return (out if bias is None else out + _over(bias, x)).to(x.dtype)


def _over(values: Tensor, x: Tensor) -> Tensor:
    """Values (C,) that spread over (B, C, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 2))
