"""The probe in other people's training loops: Stable-Baselines3, TorchRL, TensorBoard.

In a clone:

stable_baselines3.ProbeCallback     pip install -c constraints.txt '.[sb3]'
torchrl.ProbeHook                   pip install -c constraints.txt '.[torchrl]'
tensorboard.log_to                  pip install -c constraints.txt '.[tensorboard]'
"""
