"""Learn a voice prior from people whom the base has not heard.

python examples/asr/asr_adapters/fit_prior.py \
    model.nemo_model=ds2.nemo \
    model.train_ds.manifest_filepath=population.json \
    model.adapter.speaker_key=speaker \
    output=prior.pt

train_asr_adapter.py and adapt_speakers.py take it as model.adapter.prior=prior.pt. Every key stands in
conf/asr_adapters/voice_prior.yaml.
"""

from nemo_ds2_adapters.cli.scripts.fit_prior import main

if __name__ == "__main__":
    main()
