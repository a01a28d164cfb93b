"""Backbones: the networks that turn an image into features. Their PyTorch source lives here; torch is imported nowhere else.

Importing this package imports no torch: the modules below it do.
"""
