"""`make benchmark-accuracy`: how well classifiers learn from real photographs, and what decides backbone and precision."""
