"""Exports of classifiers as Core ML and ONNX models. Each has two parts that are concatenated to one model.

The parts of a backbone are built when it is published, and stored with its other files; a classifier's own part contains its
head, and is built after training. Concatenated protocol buffer messages are merged (singular messages field by field, repeated
fields by appending), so that a thousand classifiers share one body. See decision 0005 for the reasons.
"""
