"""Classification: a class for each tile of a scene; the folder of an image is its class."""

from models.spec import Classes
from models.training.losses import CLASS_LOSSES
from pipelines.tasks.imagery import imagery_task

TASK = imagery_task(
    "classification",
    "Fine-tune a Prithvi backbone on images sorted into folders by class, and write a run folder.",
    losses=CLASS_LOSSES,
    unused=(
        *("target", "data.labels", "data.column", "data.layer", "data.background", "data.ignore", "data.label_nodata"),
        "data.corrections",
        *("model.detail", "model.statistics", "model.decoder"),
    ),
    answer=lambda recipe: Classes(tuple(recipe.classes), "tile"),
)
