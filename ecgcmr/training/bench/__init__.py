"""Measure this machine: samples a second of each stage, share of the peak, share of time waited for data, memory."""
