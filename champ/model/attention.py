"""Attention of the UNets: self-attention that also reads other keys, and cross-attention to a single token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from comfy.ldm.modules.attention import (
    BasicTransformerBlock,
    CrossAttention,
    attention_pytorch,
    optimized_attention,
)
from torch import Tensor, nn

from .config import Place

READS = "champ_reads"  # key in transformer_options: the sources read by each of the equal parts of the batch
# Head sizes for which an attention that the user has chosen is used; without an entry, all. What belongs here is said
# by the last lines of the table of attentions in bench/gpu.py. SageAttention has kernels for these alone.
WORTH: dict[str, tuple[int, ...]] = {"attention_sage": (64, 96, 128)}
USED_AT = WORTH.get(optimized_attention.__name__)  # that of this installation; None: at all sizes
LONG = 2**19  # queries times keys from which torch's attention is faster on a CPU in training, too
HIDDEN = -1e4  # a bias that gives a key no weight, also in float16

Own = tuple[Tensor, Tensor, Tensor]  # queries, keys and values


@dataclass(frozen=True, eq=False)
class Split:
    """The queries of each row in two groups, which read sources of their own."""

    first: Tensor  # (rows, queries) bool, the queries of the first group
    order: Tensor  # (rows, queries) the queries, those of the first group before the others
    back: Tensor  # (rows, queries) where each query is found behind the most of the first and of the second group
    most: tuple[int, int]  # queries of the two groups in the row that has most of them

    @classmethod
    def of(cls, first: Tensor, counts: Sequence[int]) -> "Split":
        """Splits by (rows, queries) bool, of which `counts` are True in each row, known without asking a device."""
        queries = first.shape[1]
        most = max(counts), queries - min(counts)
        order = torch.argsort(~first, dim=1, stable=True)
        rank = torch.argsort(order, dim=1)
        behind = rank + most[0] + most[1] - queries
        return cls(first, order, torch.where(first, rank, behind), most)

    def groups(self) -> list[tuple[bool, Tensor]]:
        """Returns the queries (rows, n) of each group that is not empty; rows with fewer get some of the others."""
        first, second = self.most
        parts = [(True, self.order[:, :first]), (False, self.order[:, self.order.shape[1] - second :])]
        return [part for part, count in zip(parts, self.most) if count]


@dataclass(frozen=True, eq=False)
class KeySource:
    """Keys and values that rows read besides their own; a leading 1 means the same for every row."""

    k: Tensor  # (1 or rows, tokens, channels)
    v: Tensor
    bias: Tensor | None = None  # (1 or rows, 1 or queries, tokens), added to q k^T / sqrt(d); with a split, not queries
    split: Split | None = None  # of the queries; None means that all read it
    group: bool = True  # the group that reads it: True is the first

    def row(self, i: int) -> "KeySource":
        """Returns the source of one row, with a bias that hides it from queries that do not read it."""

        def own(x: Tensor) -> Tensor:
            return x if len(x) == 1 else x[i : i + 1]

        bias = None if self.bias is None else own(self.bias)
        if self.split is not None:
            shown = self.k.new_zeros(1, 1, self.k.shape[1]) if bias is None else bias
            bias = torch.where((own(self.split.first) == self.group)[..., None], shown, HIDDEN)
        return KeySource(own(self.k), own(self.v), bias)


class Source(Protocol):
    """A source of keys for transformers, for example a reference image; None where it has nothing to read. All its
    tensors are on the device."""

    def keys(self, block: Place, attention: CrossAttention) -> KeySource | None: ...


@dataclass(frozen=True, eq=False)
class TokenSource:
    """Tokens that are projected whenever they are read, weighted in the softmax by a strength."""

    tokens: Mapping[Place, Tensor]  # (1 or rows, tokens, channels)
    strength: float = 1.0

    def keys(self, block: Place, attention: CrossAttention) -> KeySource | None:
        if block not in self.tokens:
            return None
        tokens = self.tokens[block]
        bias = None if self.strength == 1 else tokens.new_full((1, 1, tokens.shape[1]), math.log(self.strength))
        return KeySource(attention.to_k(tokens), attention.to_v(tokens), bias)


@dataclass(frozen=True, eq=False)
class KeptSource:
    """Keys and values that were projected before."""

    kept: Mapping[Place, KeySource | None]

    @classmethod
    def of(cls, source: Source, attentions: Mapping[Place, CrossAttention]) -> "KeptSource":
        return cls({block: source.keys(block, attention) for block, attention in attentions.items()})

    def keys(self, block: Place, attention: CrossAttention) -> KeySource | None:
        return self.kept[block]


def softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None, options: dict[str, Any] | None = None
) -> Tensor:
    """Computes softmax(q k^T / sqrt(d) + bias) v, with ComfyUI's attention where it is suitable.

    ComfyUI's choice for the CPU is three times slower than torch's, and not all of its choices for GPUs take a bias.
    SageAttention has no kernels for the head sizes of SD1.5 (40, 80, 160), and would pad them or give up. An attention
    that another node has put into `options` is used in any case: ComfyUI's functions ask for it.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad and q.shape[1] * k.shape[1] < LONG:
        return _attention_with_gradients(q, k, v, heads, bias)
    ours = bias is not None or q.device.type == "cpu"
    ours = ours or (USED_AT is not None and q.shape[-1] // heads not in USED_AT)
    function = attention_pytorch if ours else optimized_attention
    return function(q, k, v, heads, mask=bias, transformer_options=options)


def _attention_with_gradients(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Attention in plain operations, for training in bfloat16 on a CPU: torch's takes up to three times as long there,
    until there are so many scores that they no longer stay near the processor."""
    with torch.autocast("cpu", enabled=False):
        q, k, v = (x.bfloat16().unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        if bias is not None:
            scores = scores + bias[:, None].to(scores)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    reads: Sequence[Sequence[KeySource]],
    options: dict[str, Any] | None = None,
) -> Tensor:
    """Computes attention of rows to their own keys and to the sources of their part; `reads` has one entry per equal
    part of the rows.

    out = softmax([q k^T, q k_1^T + b_1, ...]) [v; v_1; ...]: the sources and the own tokens share one softmax.
    """
    if not any(reads):
        return softmax_attention(q, k, v, heads, options=options)
    check_queries(q, k, reads)
    parts = []
    for own, sources in zip(zip(*(x.chunk(len(reads)) for x in (q, k, v))), reads):
        splits = [source.split for source in sources if source.split is not None]
        if any(split is not splits[0] for split in splits):
            # A bias for every query and key takes much memory, so rows with one are computed one at a time.
            for i, row in enumerate(zip(*(x.split(1) for x in own))):
                parts.append(_attend(row, heads, [s.row(i) for s in sources], options))
        elif splits:
            parts.append(_attend_in_groups(own, heads, sources, splits[0], options))
        else:
            parts.append(_attend(own, heads, sources, options))
    return torch.cat(parts)


def check_queries(q: Tensor, k: Tensor, reads: Sequence[Sequence[KeySource]]) -> None:
    """Raises if a patch has changed the queries so that they no longer belong to the rows and groups of the sources."""
    sources = [source for part in reads for source in part]
    if len(q) != len(k) or any(len(source.k) not in (1, len(q) // len(reads)) for source in sources):
        raise ValueError(
            "HyperTile, or a node like it, cuts the frames into tiles, which cannot read the reference; bypass that "
            "node."
        )
    known = [source.split.first.shape[1] for source in sources if source.split is not None]
    if any(count != q.shape[1] for count in known):
        raise ValueError(
            "ToMe (TomePatchModel), Kohya Deep Shrink (PatchModelAddDownscale) or a node like them gives "
            f"self-attention {q.shape[1]} pixels of a frame instead of {known[0]}, so that the person cannot be told "
            "from the background; bypass that node, or set keep background apart (masking) of Calibrate Reference to "
            "off."
        )


def _attend_in_groups(
    own: Own, heads: int, sources: Sequence[KeySource], split: Split, options: dict[str, Any] | None
) -> Tensor:
    """`attend` for rows whose queries are in two groups: each reads its own sources and those of all."""
    q, k, v = own

    def at(x: Tensor, tokens: Tensor) -> Tensor:
        return x.gather(1, tokens[..., None].expand(-1, -1, x.shape[2]))

    read = []
    for group, queries in split.groups():
        theirs = [source for source in sources if source.split is None or source.group == group]
        read.append(_attend((at(q, queries), k, v), heads, theirs, options))
    return at(torch.cat(read, 1), split.back)


def _attend(own: Own, heads: int, sources: Sequence[KeySource], options: dict[str, Any] | None) -> Tensor:
    """`attend` for rows that all read the same sources; `own` are their q, k and v."""
    q, k, v = own
    keys = torch.cat([k, *(s.k.expand(len(q), -1, -1) for s in sources)], 1)
    values = torch.cat([v, *(s.v.expand(len(q), -1, -1) for s in sources)], 1)
    return softmax_attention(q, keys, values, heads, _joined_bias(k, sources), options)


def _joined_bias(own: Tensor, sources: Sequence[KeySource]) -> Tensor | None:
    """Joins the biases, with 0 for the own keys and for sources without one; None if no source has one."""
    given = [s.bias for s in sources if s.bias is not None]
    if not given:
        return None
    rows, queries = max(b.shape[0] for b in given), max(b.shape[1] for b in given)
    pieces = [own.new_zeros(1, 1, own.shape[1])]
    pieces += [own.new_zeros(1, 1, s.k.shape[1]) if s.bias is None else s.bias.to(own) for s in sources]
    return torch.cat([piece.expand(rows, queries, -1) for piece in pieces], 2)


class SelfAttention(CrossAttention):
    """Self-attention whose rows also read the sources in transformer_options[READS]."""

    def forward(self, x, context=None, value=None, mask=None, transformer_options={}):  # noqa: B006
        # Patches of other packs may pass the own tokens as `context` and `value`, changed or not.
        context = x if context is None else context
        q, k = self.to_q(x), self.to_k(context)
        v = self.to_v(context if value is None else value)
        reads = transformer_options.get(READS, ())
        if any(reads):
            block = transformer_options["block"]
            found = ([source.keys(block, self) for source in sources] for sources in reads)
            reads = [[keys for keys in part if keys is not None] for part in found]
        return self.to_out(attend(q, k, v, self.heads, reads, transformer_options))


class TokenCrossAttention(CrossAttention):
    """Cross-attention to one token: its softmax is 1, so all queries get to_out(to_v(token))."""

    def forward(self, x, context=None, value=None, mask=None, transformer_options={}):  # noqa: B006
        patched = value is not None or "attn2_output_patch" in transformer_options.get("patches", {})
        if context is not None and context.shape[1] == 1 and not patched:
            return self.to_out(self.to_v(context))
        context = x if context is None else context
        q, k = self.to_q(x), self.to_k(context)
        v = self.to_v(context if value is None else value)
        return self.to_out(softmax_attention(q, k, v, self.heads, options=transformer_options))


def replace_attention(unet: nn.Module, operations: Any) -> None:
    """Replaces the attentions of every transformer block of a new UNet by the two above; tensor names do not change."""
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            weight = block.attn2.to_k.weight
            sizes = dict(query_dim=block.attn1.to_q.in_features, heads=block.n_heads, dim_head=block.d_head)
            kind = dict(dtype=weight.dtype, device=weight.device, operations=operations)
            block.attn1 = SelfAttention(**sizes, **kind)
            block.attn2 = TokenCrossAttention(**sizes, context_dim=weight.shape[1], **kind)
