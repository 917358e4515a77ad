"""Train a personal adapter on a frozen base.

python examples/asr/asr_adapters/train_asr_adapter.py \
    model.nemo_model=ds2.nemo \
    model.adapter.adapter_name=user_john \
    model.train_ds.manifest_filepath=john/train.json \
    model.validation_ds.manifest_filepath=john/validation.json

model.adapter.user_id='"john.doe@example.com"' in place of adapter_name names a person by any id.
Every key stands in conf/asr_adapters/asr_adaptation.yaml.
"""

from nemo_ds2_adapters.cli.scripts.train import main

if __name__ == "__main__":
    main()
