"""Training pictures altered so that their truth moves with the pixels."""
