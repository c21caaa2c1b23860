"""Reinforcement learning: rollouts, advantages, losses, the policy and the training loop."""
