"""The work of the three doors: each stage joins data, a task, training and evaluation."""
