"""What two papers share: box losses and the like."""
