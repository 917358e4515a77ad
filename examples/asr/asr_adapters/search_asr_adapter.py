"""Search for the settings of an adapter, scored for what it gains and for what is lost on the base's own domain.

python examples/asr/asr_adapters/search_asr_adapter.py --multirun \
    model.nemo_model=ds2.nemo \
    model.train_ds.manifest_filepath=john/train.json \
    model.validation_ds.manifest_filepath=john/validation.json \
    search.base_manifest=base/validation.json

What is searched over stands in conf/asr_adapters/asr_adaptation_hp.yaml, for the sweeper of Optuna, and in
asr_adaptation_grid.yaml, for Hydra's own (--config-name=asr_adaptation_grid).
"""

from nemo_ds2_adapters.cli.scripts.search import main

if __name__ == "__main__":
    main()
