"""How fast trainings are, against the official loop and against what the device can do."""
