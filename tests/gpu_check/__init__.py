"""`make gpu-check`: checks that a GPU gives the same features and scores as a CPU, and measures its speed and memory.

`prepare` writes a folder on a machine with all of Ocelli's libraries. `compare` and `fine_tuning` need that folder, the
checkout, PyTorch, torchvision and NumPy, and nothing else.
"""
