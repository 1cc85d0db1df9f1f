"""What users write into a file of theirs, and name on the command line."""

OWN = """
import torch

def policy():
    network = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(network.weight, -0.3)
    return network

class Critic(torch.nn.Module):
    def forward(self, s, a):
        return -(2 * s[:, 0] ** 2 + 1.5 * a[:, 0] ** 2 + 0.8 * s[:, 0] * a[:, 0])

def critic():
    print("chatter on standard output")
    return Critic()
"""
LQR = ["linear_quadratic", "--set", "A=[[0.9]]", "B=[[0.5]]", "Q=[[1]]", "R=[[1]]"]
LQR += ["noise_covariance=[[0.01]]", "start_mean=[0]", "start_covariance=[[1]]", "discount=0.9"]
