"""Training and evaluation, blind to methods, data sets and networks."""

from des4.engine.checkpoint import Checkpoints
from des4.engine.drift import DriftGuard
from des4.engine.evaluator import Evaluation, Evaluator
from des4.engine.guards import Guards
from des4.engine.inference import EvalConfig, segment, segment_batch
from des4.engine.optim import OptimConfig, PolySchedule, build_optimiser
from des4.engine.recorder import Recorder
from des4.engine.settings import GuardConfig, TrainConfig, choose_device, choose_precision
from des4.engine.signals import Interrupted
from des4.engine.step import TrainStep
from des4.engine.trainer import Trainer
from des4.engine.validation import Validation

__all__ = [
    "Checkpoints",
    "DriftGuard",
    "EvalConfig",
    "Evaluation",
    "Evaluator",
    "GuardConfig",
    "Guards",
    "Interrupted",
    "OptimConfig",
    "PolySchedule",
    "Recorder",
    "TrainConfig",
    "TrainStep",
    "Trainer",
    "Validation",
    "build_optimiser",
    "choose_device",
    "choose_precision",
    "segment",
    "segment_batch",
]
