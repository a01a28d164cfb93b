"""The gateway: the Visual Recognition v3 API over Classifier resources. It keeps no state of its own."""
