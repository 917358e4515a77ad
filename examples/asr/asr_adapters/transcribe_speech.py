"""Transcribe recordings of many people, each with their own adapter, in mixed batches.

python examples/asr/asr_adapters/transcribe_speech.py \
    model_path=ds2.nemo \
    dataset_manifest=calls.json \
    adapter_store=adapters \
    adapter_key=speaker

A line of the manifest that names nobody gets the base; without adapter_store the adapters are those of the .nemo, by
name. Lines that cannot be transcribed are reported, the rest is written, and the exit code is 1. Every key stands in
conf/asr_adapters/transcribe_speech.yaml.
"""

from nemo_ds2_adapters.cli.scripts.transcribe import main

if __name__ == "__main__":
    main()
