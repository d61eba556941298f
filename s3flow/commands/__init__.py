"""Commands that take more than a few lines, and what every command begins with."""
