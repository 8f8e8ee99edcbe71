"""What generated data are worth: fresh targets trained on them as a user would, and put to their task's test."""
