"""A smaller network out of a trained one over scenes: the channels and blocks that matter most, in a narrower copy.

Widths are cut everywhere at once, since the residual stream, the joins of the detail path and the decoder share
channels. What comes out answers badly, and learns quickly: pruned and then distilled (arXiv:2408.11796).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.prithvi_eo import config, evenly_spaced
from models.errors import InputError
from models.networks.assembly import assemble
from models.networks.decoders import SceneHead
from models.networks.network import Network
from models.spec import Spec
from models.training.settings import AnyArchitecture, Architecture

Chosen = Tensor  # indices of the channels that stay, (n,)
LEAST = 4  # channels of a layer of a head
RATIOS = (1.0, 0.75, 0.5)  # of the hidden units to the width, beside the run's own


def smaller(spec: Spec, backbone: str, architecture: Architecture, most: int) -> Architecture:
    """The settings of the largest network with at most so many parameters, narrower in all its parts and shallower.

    Its depth is at most that of the run times the third root of the share of parameters, and at least half of that.

    Raises:
        InputError: no network is as small as that, or the one that is given is.
    """
    whole = parameters(spec, backbone, architecture)
    if most >= whole:
        raise InputError(f"--params {most:,}: the run has {whole:,} parameters; wanted fewer")
    fields = config(backbone, **architecture.overrides)
    heads, read = fields["num_heads"], architecture.blocks or evenly_spaced(fields["depth"])
    wide, deep, step = fields["embed_dim"], fields["depth"], math.lcm(16, heads)
    deepest = max(round(deep * (most / whole) ** (1 / 3)), len(set(read)))
    depths = range(max(deepest // 2, len(set(read))), deepest + 1)
    ratios = [fields["mlp_ratio"] * share for share in RATIOS]

    def built(place: int, depth: int, ratio: float) -> Architecture:
        return _scaled(architecture, spec.answer.support, (place * step, wide), (depth, deep), read, ratio)

    def count(one: Architecture) -> int:
        return parameters(spec, backbone, one)

    found = []
    for depth, ratio in itertools.product(depths, ratios):  # each network takes a moment to build, so few are
        places = [built(place, depth, ratio) for place in range(1, wide // step + 1)]
        if fitting := bisect_right(places, most, key=count):
            found.append(places[fitting - 1])
    if found:
        return max(found, key=count)
    least = count(built(1, depths[0], ratios[-1]))
    raise InputError(f"--params {most:,}: the smallest of this run has {least:,} parameters; wanted at least that many")


def _scaled(
    architecture: Architecture,
    support: str,
    dims: tuple[int, int],
    depths: tuple[int, int],
    read: Sequence[int],
    ratio: float,
) -> Architecture:
    """Widths times a factor, and a depth; what the head reads are the blocks that it read before."""
    (dim, wide), (depth, deep) = dims, depths
    factor, stay = dim / wide, _blocks(deep, depth, read)

    def width(channels: int) -> int:
        return channels and max(round(channels * factor), LEAST)

    made = dataclasses.replace(
        architecture,
        overrides=dict(architecture.overrides) | {"embed_dim": dim, "depth": depth, "mlp_ratio": ratio},
        blocks=tuple(stay.index(block) for block in read),
        channels=max(8 * round(architecture.channels * factor / 8), 8),
        drop_path=0.0,
    )
    if support == "tile":  # its head has neither of both
        return made
    first, second = architecture.pixel
    return dataclasses.replace(
        made,
        detail=width(architecture.detail),
        pixel=(width(first), width(second)),
        statistics=2 * width(architecture.statistics // 2),
    )


def _blocks(count: int, depth: int, read: Sequence[int]) -> tuple[int, ...]:
    """Which blocks stay: those whose tokens are read, and others as evenly as they lie."""
    stay = set(read)
    for block in (*evenly_spaced(max(read) + 1, depth), *range(max(read), -1, -1), *range(count)):
        if len(stay) < depth:
            stay.add(block)
    return tuple(sorted(stay))


def parameters(spec: Spec, backbone: str, architecture: AnyArchitecture) -> int:
    """How many a network has, without making its weights."""
    with torch.device("meta"):
        network = assemble(spec, backbone, architecture)
    return sum(weight.numel() for weight in network.parameters())


def prune(teacher: Network, student: Network, batches: Iterable[Mapping[str, Tensor]]) -> Chosen:
    """Give a narrower network the weights of a trained one, chosen by what is active on training samples.

    The member of statistics, decoders other than "linear", and what weather adds keep their own: they are learned anew.

    Args:
        teacher: in eval mode.
        student: of the settings of `smaller`; changed in place.
        batches: inputs that channels are judged on.

    Returns:
        The channels of the residual stream that stayed.
    """
    vit, small = teacher.backbone.vit, student.backbone.vit
    read = teacher.backbone.blocks
    blocks = _blocks(len(vit.blocks), len(small.blocks), read)
    stream, hidden = _activity(teacher, blocks, batches)
    kept = largest(stream, small.embed_dim)
    with torch.no_grad():
        take(small.patch_embed.proj, vit.patch_embed.proj, kept)
        for name in ("cls_token", "pos_embed"):
            getattr(small, name).copy_(getattr(vit, name)[..., kept])
        take(small.norm, vit.norm, kept)
        for encoder in ("temporal_embed_enc", "location_embed_enc"):
            if hasattr(vit, encoder):
                getattr(small, encoder).load_state_dict(getattr(vit, encoder).state_dict())
        for mine, block in zip(small.blocks, blocks, strict=True):
            _block(mine, vit.blocks[block], kept, hidden[block])
        places = _side_by_side([kept] * (len(read) * teacher.spec.imagery.times), vit.embed_dim)
        head = _scene_head if isinstance(teacher.head, SceneHead) else _dense_head
        head(student.head, teacher.head, places)
        for name in ("target_mean", "target_std"):
            getattr(student, name).copy_(getattr(teacher, name))
    return kept


def _activity(
    teacher: Network, blocks: Sequence[int], batches: Iterable[Mapping[str, Tensor]]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Mean magnitude of the normalised residual stream (E,), and of each block's hidden units (4 E,)."""
    vit = teacher.backbone.vit
    sums: dict[Any, Tensor] = {}

    def add(key: Any, x: Tensor) -> None:
        found = x.detach().abs().flatten(0, -2).mean(0)
        sums[key] = sums.get(key, 0.0) + found

    handles = [vit.blocks[i].norm1.register_forward_hook(lambda m, g, out: add("stream", out)) for i in blocks]
    handles += [vit.blocks[i].norm2.register_forward_hook(lambda m, g, out: add("stream", out)) for i in blocks]
    handles += [vit.blocks[i].mlp.act.register_forward_hook(lambda m, g, out, i=i: add(i, out)) for i in blocks]
    try:
        with torch.inference_mode():
            for batch in batches:
                teacher.features(batch)
    finally:
        for handle in handles:
            handle.remove()
    return sums["stream"].clone(), {i: sums[i].clone() for i in blocks}


def largest(importance: Tensor, count: int) -> Chosen:
    """The most important channels, in their order."""
    return importance.argsort(descending=True, stable=True)[:count].sort().values


def _block(mine: Any, theirs: Any, kept: Chosen, hidden: Tensor) -> None:
    """A block of the backbone: its stream, in each head the pairs of query and key and the values, and hidden units."""
    for norm in ("norm1", "norm2"):
        take(getattr(mine, norm), getattr(theirs, norm), kept)
    heads = theirs.attn.num_heads
    wide, narrow = theirs.attn.head_dim, mine.attn.head_dim
    weight, bias = theirs.attn.qkv.weight.unflatten(0, (3, heads, wide)), theirs.attn.qkv.bias.view(3, heads, wide)
    pairs = weight[0].norm(dim=-1) * weight[1].norm(dim=-1)  # (heads, wide)
    out = theirs.attn.proj.weight.unflatten(1, (heads, wide))  # (E, heads, wide)
    values = weight[2].norm(dim=-1) * out.norm(dim=0)
    scale = (narrow / wide) ** 0.25  # of query and key each: attention divides by the root of the head's width
    for head in range(heads):
        matched, passed = largest(pairs[head], narrow), largest(values[head], narrow)
        rows = slice(head * narrow, (head + 1) * narrow)
        for part, some, by in ((0, matched, scale), (1, matched, scale), (2, passed, 1.0)):
            mine.attn.qkv.weight.unflatten(0, (3, heads, narrow))[part, head] = weight[part, head][some][:, kept] * by
            mine.attn.qkv.bias.view(3, heads, narrow)[part, head] = bias[part, head][some] * by
        mine.attn.proj.weight[:, rows] = out[kept, head][:, passed]
    mine.attn.proj.bias.copy_(theirs.attn.proj.bias[kept])
    units = largest(hidden * theirs.mlp.fc2.weight.norm(dim=0), len(mine.mlp.fc1.bias))
    take(mine.mlp.fc1, theirs.mlp.fc1, units, kept)
    take(mine.mlp.fc2, theirs.mlp.fc2, kept, units)


def _scene_head(mine: Any, theirs: Any, places: Chosen) -> None:
    """The head of one class a tile."""
    for part in ("statistics", "vote", "logistic"):
        getattr(mine, part).load_state_dict(getattr(theirs, part).state_dict())
    hidden, last = theirs.tokens[1], theirs.token_vote[1]
    units = largest(last.weight.norm(dim=0) * hidden.weight.norm(dim=1), mine.tokens[1].out_features)
    take(mine.tokens[0], theirs.tokens[0], places)
    take(mine.tokens[1], hidden, units, places)
    take(mine.token_vote[1], last, None, units)


def _dense_head(mine: Any, theirs: Any, places: Chosen) -> None:
    """The head of an answer a pixel."""
    said = None
    conv = getattr(theirs.decoder.body, "conv", None)
    if isinstance(conv, nn.ConvTranspose2d):  # "linear"
        small = mine.decoder.body.conv
        said = largest(conv.weight.square().sum((0, 2, 3)), small.out_channels)
        small.weight.copy_(conv.weight[places][:, said])
        if conv.bias is not None:
            small.bias.copy_(conv.bias[said])
        if theirs.detail is None:
            take(mine.classify, theirs.classify, None, said)
    if theirs.detail is not None:
        _detail(mine.detail, theirs.detail, said)


def _detail(mine: Any, theirs: Any, said: Chosen | None) -> None:
    """The detail path; `said` are the decoder's channels that stay, None where that is learned anew."""
    mine.norm.load_state_dict(theirs.norm.state_dict())
    pixel = _conv(mine.pixel[2], theirs.pixel[2], _conv(mine.pixel[0], theirs.pixel[0], None))
    take(mine.pixel_vote, theirs.pixel_vote, None, pixel)
    levels = [_conv(mine.down[0], theirs.down[0], pixel)]
    for small, large in zip(mine.down[1:], theirs.down[1:], strict=True):
        stay = levels[-1]
        for own, other in zip(small[1:], large[1:], strict=True):  # after the pooling
            stay = _conv(own, other, stay)
        levels.append(stay)
    if said is None:
        return
    down, up = (theirs.down[2][1], theirs.down[1][1], theirs.down[0]), (theirs.up[0][0], *theirs.up[1:])
    x = _conv(mine.join, theirs.join, torch.cat((levels[-1], said + theirs.down[3][1][0].out_channels)))
    for small, large, level, beside in zip((mine.up[0][0], *mine.up[1:]), up, levels[2::-1], down, strict=True):
        x = _conv(small, large, torch.cat((level, x + beside[0].out_channels)))
    take(mine.vote[1], theirs.vote[1], None, x)


def _conv(mine: Any, theirs: Any, into: Chosen | None) -> Chosen:
    """A convolution with its batch norm; the channels that come out are those of the largest gains."""
    stay = largest(theirs[1].weight.abs(), mine[0].out_channels)
    take(mine[0], theirs[0], stay, into)
    take(mine[1], theirs[1], stay)
    return stay


def take(mine: Any, theirs: Any, rows: Chosen | None, columns: Chosen | None = None) -> None:
    """All tensors of a layer: some of its outputs, and of a weight's inputs."""
    state = mine.state_dict()
    for name, tensor in theirs.state_dict().items():
        if tensor.ndim == 0:
            state[name].copy_(tensor)
            continue
        part = tensor if rows is None else tensor[rows]
        state[name].copy_(part if columns is None or part.ndim < 2 else part[:, columns])


def _side_by_side(parts: Sequence[Chosen], width: int) -> Chosen:
    """Indices within maps that lie side by side, each of a width."""
    return torch.cat([part + i * width for i, part in enumerate(parts)])
