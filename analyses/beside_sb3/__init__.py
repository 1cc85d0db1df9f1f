"""SAC and TD3 beside Stable-Baselines3's."""
