"""The inference server: one classifier's revision, behind the prediction call and the Open Inference Protocol."""
