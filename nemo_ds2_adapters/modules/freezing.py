"""What freezing and unfreezing must leave as it was."""

from nemo.core.classes.module import NeuralModule


class KeepsModeModule(NeuralModule):
    """A neural module whose partial unfreeze leaves the train/eval mode alone.

    NeMo's `transcribe()` freezes encoder and decoder and then unfreezes them partially, which puts them in
    training mode even when the model was in eval mode: the next forward would use dropout and batch statistics.
    """

    def unfreeze(self, partial: bool = False) -> None:
        """Unfreeze parameters; with `partial` only those that were trainable before `freeze()`."""
        training = self.training
        super().unfreeze(partial=partial)
        if partial:
            self.train(training)
