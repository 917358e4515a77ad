"""Train a DeepSpeech2 base model; an interrupted training goes on where it was.

python examples/asr/asr_ctc/train_deepspeech2.py \
    model.train_ds.manifest_filepath=train.json \
    model.validation_ds.manifest_filepath=validation.json

Every key stands in conf/deepspeech2/deepspeech2_small.yaml; --config-name=deepspeech2 is the large model, and
deepspeech2_syllables, deepspeech2_graphemes and deepspeech2_bpe are the same with other output units.
"""

from nemo_ds2_adapters.cli.scripts.train_base import main

if __name__ == "__main__":
    main()
