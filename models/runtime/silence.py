"""Libraries that report to their makers, or ask for newer versions of themselves, are kept from it by importing this.

Only what a person asked for may ask the network. What he set himself in his environment stays.
"""

import os
import sys

for _name, _value in {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime numbers the machine in the home folder otherwise
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",  # terratorch imports it
    "LIGHTLY_DID_VERSION_CHECK": "True",  # torchgeo imports it
    "WANDB_MODE": "offline",  # nothing of ours logs to it; Lightning may be told to
}.items():
    os.environ.setdefault(_name, _value)

# OpenVINO has a stub for where this is not installed; its own switch wants a file in the home folder.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as None it cannot be imported
