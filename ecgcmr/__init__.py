"""Teach an ECG model what cardiac MRI sees."""

__version__ = "0.1.0"
