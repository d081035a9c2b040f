"""An engine that is eager PyTorch with a delay; nothing here imports torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from mlff_exp.engines import EngineSpec


@dataclass
class SlowOptions:
    """Eager PyTorch that waits before each call.

    Attributes:
        delay_ms: how long.
    """

    name: str = "slow_eager"
    delay_ms: float = 5.0


def make(model: Any, precision: Any, device: Any, options: SlowOptions) -> Any:
    """The engine."""
    from mlff_exp.engines import EagerEngine

    class SlowEager(EagerEngine):
        name = "slow_eager"

        def __call__(self, batch: Any) -> Any:
            time.sleep(options.delay_ms / 1000)
            return super().__call__(batch)

    return SlowEager(model, precision, device)


SPEC = EngineSpec("slow_eager", SlowOptions, "eager with a delay", "outside_force_field.engine:make")
