"""The whole job at laptop size: simulate, pretrain, align, compare, report."""
