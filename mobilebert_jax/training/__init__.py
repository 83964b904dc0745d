"""The training runtime: step, state, checkpoints, metrics, health, evaluation."""
