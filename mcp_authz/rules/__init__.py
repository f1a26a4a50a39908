"""Pure rules: facts in, values out; no await, no clock, no randomness, no logging, no environment."""
