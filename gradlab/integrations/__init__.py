"""The probe in other people's training loops: Stable-Baselines3, TorchRL, TensorBoard.

    from gradlab.integrations.stable_baselines3 import ProbeCallback   pip install 'gradlab[sb3]'
    from gradlab.integrations.torchrl import ProbeHook       pip install 'gradlab[torchrl]'
    from gradlab.integrations.tensorboard import log_to      pip install 'gradlab[tensorboard]'
"""
