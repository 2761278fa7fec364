"""Tells whether bfloat16 is fast on this CPU."""

import time
from functools import cache

import torch


@cache
def bf16_slowdown() -> float:
    """Measures how many times as long as in float32 a product of matrices takes in bfloat16 on the processor: less
    than 1 with instructions for it, 10 or more without."""

    def seconds(x: torch.Tensor) -> float:
        started = time.perf_counter()
        x @ x
        return time.perf_counter() - started

    x = torch.rand(256, 256)
    return min(seconds(x.bfloat16()) for _ in range(5)) / min(seconds(x) for _ in range(5))
