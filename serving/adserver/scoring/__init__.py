"""Click probability: the champion model, or rates."""
