"""The service's log: one JSON object per line, without speech, text, or whose they are."""

import json
import logging
from typing import Any

SERVICE = "nemo_ds2_adapters.serving"
NEMO = "nemo_logger"  # says much that is of no use here, and some of it with texts

logger = logging.getLogger(SERVICE)


class JsonLines(logging.Formatter):
    """An event, its values, and what was raised, if anything."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname.lower()}
        values |= {"event": record.getMessage(), **getattr(record, "values", {})}
        if record.exc_info:
            values["raised"] = self.formatException(record.exc_info)
        return json.dumps(values)


def log(event: str, **values: Any) -> None:
    """Note an event."""
    given = {key: value for key, value in values.items() if value is not None}
    logger.info(event, extra={"values": given})


def start_log() -> None:
    """Write the events of the service, and the errors of everything else, to the error stream."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.disable(logging.NOTSET)  # what the command line does to keep everything off the screen
    logging.getLogger(NEMO).setLevel(logging.ERROR)
    for name, level in ((SERVICE, logging.INFO), ("uvicorn", logging.WARNING), ("ray.serve", logging.WARNING)):
        one = logging.getLogger(name)
        one.handlers, one.propagate = [handler], False
        one.setLevel(level)
