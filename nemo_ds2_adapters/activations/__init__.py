"""The frozen part of a network, computed once per utterance and reused in every epoch."""
