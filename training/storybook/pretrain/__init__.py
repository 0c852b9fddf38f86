"""A tiny CLIP, SAM encoder or Swin, trained on Storybook."""
