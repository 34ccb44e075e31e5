"""How well one segmentation agrees with another, by structure, by case and in all."""
