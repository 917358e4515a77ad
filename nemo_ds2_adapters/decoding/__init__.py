"""From log probabilities to text: whole utterances, and streams."""
