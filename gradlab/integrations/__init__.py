"""The probe in other people's training loops: Stable-Baselines3, TorchRL; its rows in loggers.

In a clone:

stable_baselines3.ProbeCallback     pip install -c constraints.txt '.[sb3]'
torchrl.ProbeHook                   pip install -c constraints.txt '.[torchrl]'
loggers.to_tensorboard              pip install -c constraints.txt '.[tensorboard]'
loggers.to_wandb, to_trackio        pip install wandb, trackio
"""
