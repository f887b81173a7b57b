"""The training step, the loop around it, how examples reach it, and runs trained side by side."""
