"""Backbones: the networks that turn an image into features. Their PyTorch code is here.

Importing this package does not import torch; some of its modules do.
"""
