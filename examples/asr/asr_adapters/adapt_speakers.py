"""Train an adapter for every speaker of a manifest, in one run.

python examples/asr/asr_adapters/adapt_speakers.py \
    model.nemo_model=ds2.nemo \
    model.train_ds.manifest_filepath=all_speakers.json \
    model.adapter.speaker_key=speaker \
    adapter_store=adapters

Each adapter goes to the store as soon as it is finished. Run again, it goes on where it was interrupted, and trains
further those whose recordings changed. Every key stands in conf/asr_adapters/speaker_adaptation.yaml.
"""

from nemo_ds2_adapters.cli.scripts.adapt_speakers import main

if __name__ == "__main__":
    main()
