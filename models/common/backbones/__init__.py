"""Backbones of pictures by name, of timm, of torchvision and our own: built, normalised, with pretrained weights."""
