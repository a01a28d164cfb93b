"""Data of the 1,000 classes of ImageNet-1k, which all of torchvision's networks have, for built-in classifiers.

`labels.txt` has the class name of each output, `synsets.txt` its WordNet 3.0 synset, `hierarchy.txt` its place among the
others, and `translations.json` names in ten more languages; `generate.py` writes them. `food.txt`, written by hand, lists the
foods with their places in a separate tree. `label_set.py` reads all of them. The licences of the data are in `NOTICE.txt`.
"""
