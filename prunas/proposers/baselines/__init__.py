"""What the others are compared with, and designs carried over from found points."""
