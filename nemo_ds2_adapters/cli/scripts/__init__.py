"""Commands with a config: the bodies of the scripts in examples/, and what they have in common."""
