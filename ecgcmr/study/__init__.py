"""Studies: several arms, the same subjects, seeds and label draws, one table with intervals; run from one file."""
