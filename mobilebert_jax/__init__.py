"""MobileBERT end to end in JAX: teacher, layer-by-layer transfer, distillation, evaluation."""

__version__ = "0.1.0"
