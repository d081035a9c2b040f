"""Capturing kernels in a CUDA graph."""

from __future__ import annotations

import pytest
import torch

from mlff_exp.engines.cuda_graph import capture

CUDA = torch.device("cuda")


@pytest.mark.gpu
def test_a_replay_repeats_the_capture_without_the_warm_up() -> None:
    number, calls = torch.ones(3, device=CUDA), []

    def double() -> torch.Tensor:
        calls.append("double")
        return number.mul_(2) + 1

    graph, result = capture(double, CUDA, warm_up=[lambda: number.add_(1), lambda: number.sub_(1)])
    assert calls == ["double"]
    assert number.tolist() == [1, 1, 1], "a capture computes nothing"
    for expected in (2.0, 4.0, 8.0):
        graph.replay()
        assert number.tolist() == [expected] * 3
        assert result.tolist() == [expected + 1] * 3
    assert calls == ["double"]
