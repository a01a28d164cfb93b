"""Pure builders of everything that the operator creates for a Classifier. Each returns a new dict, ready to be sent."""
