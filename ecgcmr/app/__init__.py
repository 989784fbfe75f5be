"""The local app: one ECG in, what the model says of it out; on this machine only, and nothing is kept."""
