"""The attentions against their formulas."""

from dataclasses import replace

import comfy.ops
import pytest
import torch
from golden import relative

from champ.model.attention import (
    READS,
    KeySource,
    SelfAttention,
    Split,
    TokenCrossAttention,
    attend,
    softmax_attention,
)

HEADS, CHANNELS = 2, 16


def formula(q, k, v, bias=None):
    """softmax(q k^T / sqrt(d) + bias) v for one row, in float64."""
    q, k, v = (x.double().unflatten(-1, (HEADS, -1)).transpose(0, 1) for x in (q, k, v))
    logits = q @ k.transpose(1, 2) / (CHANNELS / HEADS) ** 0.5
    logits = logits if bias is None else logits + bias
    return (logits.softmax(-1) @ v).transpose(0, 1).flatten(1)


def source(tokens, rows=1, bias=None):
    return KeySource(torch.randn(rows, tokens, CHANNELS), torch.randn(rows, tokens, CHANNELS), bias)


def random_tokens(rows, tokens):
    return tuple(torch.randn(rows, tokens, CHANNELS) for _ in range(3))


def test_each_part_reads_its_sources():
    q, k, v = random_tokens(6, 5)
    shared, weighed = source(7), source(3, bias=torch.randn(1, 1, 3))
    per_row = source(4, rows=2, bias=torch.randn(2, 5, 4))
    reads = [[], [shared], [weighed, shared, per_row]]
    out = attend(q, k, v, HEADS, reads)
    for row in range(6):
        keys, values, biases = [k[row]], [v[row]], [torch.zeros(5, 5)]
        for s in reads[row // 2]:
            index = row % 2 if len(s.k) > 1 else 0
            keys.append(s.k[index])
            values.append(s.v[index])
            bias = torch.zeros(1, 1, s.k.shape[1]) if s.bias is None else s.bias
            biases.append(bias[index if len(bias) > 1 else 0].expand(5, -1))
        wanted = formula(q[row], torch.cat(keys), torch.cat(values), torch.cat(biases, 1))
        assert relative(out[row], wanted) < 1e-6, row


def test_a_source_with_no_weight_or_a_copy_of_itself():
    q, k, v = random_tokens(2, 5)
    own = source(6)
    hidden = KeySource(own.k, own.v, torch.full((1, 1, 6), -torch.inf))
    twice = KeySource(own.k, own.v, torch.full((1, 1, 6), 2.0).log())
    torch.testing.assert_close(attend(q, k, v, HEADS, [[hidden]]), attend(q, k, v, HEADS, [[]]))
    torch.testing.assert_close(attend(q, k, v, HEADS, [[twice]]), attend(q, k, v, HEADS, [[own, own]]))


def split(first: torch.Tensor) -> Split:
    return Split.of(first, first.sum(1).tolist())


@pytest.mark.parametrize("several", [False, True], ids=["one split", "several splits"])
def test_only_the_queries_of_a_group_read_a_source(several):
    """Sources for either group and for all; rows that are all of one group; splits that differ."""
    q, k, v = random_tokens(3, 5)
    first = torch.tensor([[True, False, True, False, False], [False] * 5, [True] * 5])
    other = torch.rand(3, 5) > 0.5 if several else first
    groups = split(first)
    shared, chosen, same = source(7), source(4, rows=3, bias=torch.randn(3, 1, 4)), source(2)
    reads = [
        shared,
        replace(chosen, split=groups),
        replace(same, split=split(other) if several else groups, group=False),
    ]
    out = attend(q, k, v, HEADS, [reads])
    hidden = torch.where(first[..., None], chosen.bias, -torch.inf)
    hidden_same = torch.where(~other[..., None], 0.0, -torch.inf).expand(-1, -1, 2)
    for row in range(3):
        keys = torch.cat([k[row], shared.k[0], chosen.k[row], same.k[0]])
        values = torch.cat([v[row], shared.v[0], chosen.v[row], same.v[0]])
        bias = torch.cat([torch.zeros(5, 12), hidden[row], hidden_same[row]], 1)
        assert relative(out[row], formula(q[row], keys, values, bias)) < 1e-6, row


def test_groups_of_queries_go_out_and_come_back():
    first = torch.rand(4, 9) > 0.6
    groups = split(first)
    assert sum(groups.most) >= 9
    queries = torch.arange(9).expand(4, -1)
    there = torch.cat([queries.gather(1, of) for _, of in groups.groups()], 1)
    assert torch.equal(there.gather(1, groups.back), queries)
    assert [group for group, _ in split(torch.zeros(2, 3, dtype=torch.bool)).groups()] == [False]


def build(kind, **sizes):
    layer = kind(query_dim=CHANNELS, heads=HEADS, dim_head=8, operations=comfy.ops.disable_weight_init, **sizes)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.requires_grad_(False)


class FixedSource:
    def __init__(self, tokens):
        self.tokens, self.asked = tokens, []

    def keys(self, block, attention):
        self.asked.append(block)
        return KeySource(attention.to_k(self.tokens), attention.to_v(self.tokens))


def test_self_attention_reads_through_its_own_projections():
    layer, x, tokens = build(SelfAttention), torch.randn(2, 5, CHANNELS), torch.randn(1, 7, CHANNELS)
    reader = FixedSource(tokens)
    options = {READS: [[], [reader]], "block": ("middle", 0)}
    out = layer(x, transformer_options=options)
    torch.testing.assert_close(out[0], layer(x)[0])
    torch.testing.assert_close(out[1], layer(x, context=torch.cat([x, tokens.expand(2, -1, -1)], 1))[1])
    assert reader.asked == [("middle", 0)]


@pytest.mark.parametrize("tokens", [1, 3])
def test_cross_attention_to_one_token_is_folded(tokens):
    layer, x, context = (
        build(TokenCrossAttention, context_dim=12),
        torch.randn(2, 5, CHANNELS),
        torch.randn(2, tokens, 12),
    )
    out = layer(x, context)
    assert out.shape == (2, 1 if tokens == 1 else 5, CHANNELS)
    full = layer(x, context, transformer_options={"patches": {"attn2_output_patch": [None]}})
    assert full.shape == x.shape
    torch.testing.assert_close(out.expand_as(full), full)
    torch.testing.assert_close(layer(x, context, value=context), full)


@pytest.mark.parametrize("biased", [False, True])
def test_attention_written_out_for_training_has_the_same_gradients(biased):
    def draw(seed: int, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()

    def run(dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [draw(i, 2, tokens, 16) for i, tokens in enumerate((5, 9, 9))]
        bias = draw(3, 1, 1, 9).detach().to(dtype) if biased else None
        out = softmax_attention(*(x.to(dtype) for x in leaves), 4, bias)
        out.float().square().sum().backward()
        return [out.float(), *(x.grad for x in leaves)]

    for rounded, exact in zip(run(torch.bfloat16), run(torch.float32)):
        assert float((rounded - exact).norm() / exact.norm()) < 0.03


@pytest.mark.parametrize("size, taken", [(40, "torch"), (64, "sage"), (80, "torch"), (160, "torch")])
def test_sage_attention_where_it_has_kernels(size, taken, monkeypatch):
    """On a card; a meta tensor stands for one."""
    from champ.model import attention

    asked = []

    def attention_sage(q, *args, **kwargs):
        return asked.append("sage") or q

    def attention_pytorch(q, *args, **kwargs):
        return asked.append("torch") or q

    monkeypatch.setattr(attention, "optimized_attention", attention_sage)
    monkeypatch.setattr(attention, "USED_AT", attention.WORTH["attention_sage"])
    monkeypatch.setattr(attention, "attention_pytorch", attention_pytorch)
    x = torch.empty(2, 4, 2 * size, device="meta")
    softmax_attention(x, x, x, 2)
    softmax_attention(x, x, x, 2, bias=torch.empty(1, 1, 4, device="meta"))
    assert asked == [taken, "torch"]
