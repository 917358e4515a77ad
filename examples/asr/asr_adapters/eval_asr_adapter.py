"""Evaluate an adapter of a model, or its base; or many people's adapters, each on its own utterances.

python examples/asr/asr_adapters/eval_asr_adapter.py \
    model.nemo_model=adapted.nemo \
    model.adapter.adapter_name=user_john \
    model.test_ds.manifest_filepath=john/test.json

model.adapter.adapter_name=null evaluates the base; model.adapter.user_id='"john.doe@example.com"' in its place names a
person by any id.

python examples/asr/asr_adapters/eval_asr_adapter.py \
    model.nemo_model=ds2.nemo \
    model.adapter.adapter_key=speaker \
    adapter_store=adapters \
    model.test_ds.manifest_filepath=everybody/test.json

compares base and personal adapters, per person and in total; without adapter_store the adapters are those of the
.nemo, by name. Every key stands in conf/asr_adapters/asr_evaluation.yaml.
"""

from nemo_ds2_adapters.cli.scripts.evaluate import main

if __name__ == "__main__":
    main()
