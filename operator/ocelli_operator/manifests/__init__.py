"""Pure builders of everything that the operator makes for a Classifier. Each returns a fresh dict, ready to be sent."""
