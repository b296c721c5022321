"""The parts of the simulated scene: noise, the landscape, what sensors see of it, and drawn labels."""
