"""How a network learns from labels: what of it is trained, on what, how fast, and from where."""
