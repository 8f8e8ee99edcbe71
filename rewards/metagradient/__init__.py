"""Exact metagradients through many optimizer steps of a Hugging Face causal LM."""

from rewards.metagradient.allocator import keep_freed_memory
from rewards.metagradient.checkpointing import MemoryPlan
from rewards.metagradient.engine import Metagradient, Prepared, metagradient, train
from rewards.metagradient.errors import (
    BatchError,
    MemoryBudgetError,
    MetagradientError,
    MetricError,
    NonFiniteError,
    NoScoredTokensError,
    SecondDerivativeError,
)
from rewards.metagradient.loss import LossConvention
from rewards.metagradient.optimizer import InnerOptimizer, TorchOptRule, UpdateRule

__all__ = [
    "BatchError",
    "InnerOptimizer",
    "LossConvention",
    "MemoryBudgetError",
    "Metagradient",
    "MetagradientError",
    "MetricError",
    "NoScoredTokensError",
    "NonFiniteError",
    "MemoryPlan",
    "Prepared",
    "SecondDerivativeError",
    "TorchOptRule",
    "UpdateRule",
    "keep_freed_memory",
    "metagradient",
    "train",
]
