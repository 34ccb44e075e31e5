"""How far two segmentations of the same scan agree, whoever made them."""
