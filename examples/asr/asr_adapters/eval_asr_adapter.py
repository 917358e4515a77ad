"""Evaluate an adapter of a model, or its base.

python examples/asr/asr_adapters/eval_asr_adapter.py \
    model.nemo_model=adapted.nemo \
    model.adapter.adapter_name=user_john \
    model.test_ds.manifest_filepath=john/test.json

model.adapter.adapter_name=null evaluates the base; model.adapter.user_id='"john.doe@example.com"' in its place names a
person by any id. Every key stands in conf/asr_adapters/asr_adaptation.yaml.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import lightning.pytorch as pl
from nemo.core.config import hydra_runner
from omegaconf import DictConfig

from nemo_ds2_adapters.adapters.restore import check_source, restore_model
from nemo_ds2_adapters.training.adapter_setup import enable_only
from nemo_ds2_adapters.training.chosen_adapter import chosen_adapter
from nemo_ds2_adapters.training.data import check_section, loader_config, read_section
from nemo_ds2_adapters.training.evaluation import total_score, transcribe_section
from nemo_ds2_adapters.training.script import check_keys, one_line_errors, open_overrides, quiet

CONFIG = Path(__file__).resolve().parents[3] / "conf" / "asr_adapters" / "asr_adaptation.yaml"


@hydra_runner(config_path=str(CONFIG.parent), config_name=CONFIG.stem)
@one_line_errors
def main(cfg: DictConfig) -> None:
    check_keys(cfg, CONFIG)
    quiet(cfg.log_level)
    adapter = chosen_adapter(cfg.model.adapter, base_allowed=True)
    check_source(cfg.model.nemo_model, cfg.model.pretrained_model)
    test = read_section(cfg.model, "test_ds")

    trainer = pl.Trainer(**cfg.trainer)
    model = restore_model(cfg.model.nemo_model, cfg.model.pretrained_model, trainer)
    check_section(test, model)
    enable_only(model, adapter)
    model.freeze()
    scores = transcribe_section(trainer, model, loader_config(test, model))

    output = Path(cfg.output_filename or f"eval_{adapter.name or 'base'}.jsonl")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("".join(f"{json.dumps(asdict(score), ensure_ascii=False)}\n" for score in scores), "utf-8")
    wer, cer, words = total_score(scores)
    print(f"{adapter.shown}: WER {100 * wer:.2f} %, CER {100 * cer:.2f} %, {len(scores)} utterances, {words} words")
    print(f"  each utterance: {output}")


if __name__ == "__main__":
    sys.argv[1:] = open_overrides(sys.argv[1:])
    main()
