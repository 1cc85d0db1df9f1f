"""Policy gradients measured on recorded trajectories with a learned model, without a simulator.

measure_logs(data, policy, model, critic, discount=0.99) → LogsRun
"""
