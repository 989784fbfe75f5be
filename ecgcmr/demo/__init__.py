"""The whole job at laptop size: simulate, pretrain, align, compare, fine-tune, evaluate, explain, report."""
