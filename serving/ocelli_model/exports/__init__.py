"""Exports of classifiers as Core ML and ONNX models, each in two parts that make one model when put one behind the other.

The parts of a backbone are made when it is published, and lie beside its other files; a classifier's own part holds its head
and is made when it was trained. Messages of protocol buffers merge when they are concatenated (singular messages field by
field, repeated fields by appending), so that a thousand classifiers share one body. Decision 0005 has the reasons.
"""
