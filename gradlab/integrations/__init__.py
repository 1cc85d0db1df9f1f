"""The probe in other people's training loops: Stable-Baselines3, TorchRL, TensorBoard.

stable_baselines3.ProbeCallback     pip install 'gradlab[sb3]'
torchrl.ProbeHook                   pip install 'gradlab[torchrl]'
tensorboard.log_to                  pip install 'gradlab[tensorboard]'
"""
