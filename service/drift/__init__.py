"""Drift: what requests are like against what the model was registered with."""
