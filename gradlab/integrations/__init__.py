"""The probe in other people's training loops: Stable-Baselines3, TorchRL, TensorBoard."""
