"""`make gpu-check`: whether a GPU gives the features and scores that a CPU gives, how fast, and with how much memory.

`prepare` writes a folder on a machine with all of Ocelli's libraries. `compare` needs that folder, the checkout, PyTorch,
torchvision and NumPy, and nothing else.
"""
