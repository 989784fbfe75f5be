"""Third-party checkpoints into weights folders: one file for each family of layouts."""
