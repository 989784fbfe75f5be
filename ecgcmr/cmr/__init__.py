"""Cine CMR: readers, preprocessing, augmentation; nothing about learning."""
