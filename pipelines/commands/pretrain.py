"""earthtune pretrain: unlabelled scenes in, a weight file for fine-tuning out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.commands.outcome import Outcome
from pipelines.recipes.pretraining import Pretraining
from pipelines.runs.folder import Launch
from pipelines.scenes.reading import Reading


def pretrain(
    scenes: Sequence[str],
    *,
    out: Path,
    settings: Pretraining = Pretraining(),
    reading: Reading = Reading(),
    launch: Launch = Launch(),
) -> dict[str, Any]:
    """Go on with the pretraining of a Prithvi EO on scenes without labels, and write a weight file for --weights.

    Three quarters of the patches are hidden and asked for, by the published encoder and decoder (masked autoencoding);
    pixels that are not valid are neither seen nor asked for.

    Args:
        scenes: rasters, folders of band files, STAC items, patterns such as 'b/*.tif', or folders of many scenes; the
            frames of a scene of several dates are joined by commas: a.tif,b.tif.
        out: folder for the weights and what is told of them.
        settings: how it goes on.
        reading: what the files do not say themselves.
        launch: how it is carried out.
    """
    from pipelines.grids.rasters import trusting  # rasterio: not for the help
    from pipelines.samples.unlabelled import open_frames
    from pipelines.scenes.find import find_scenes

    first, *others = find_scenes(scenes)
    with trusting(launch.trust):  # what is wrong with the files is told before torch is imported: 10 s
        open_frames(first, reading, frames=settings.frames, alone=not others)
    from pipelines.runs.pretrain import pretrain as run  # torch, terratorch: not for the help

    result = run(scenes, settings, out, reading=reading, launch=launch)
    return result and {"run": str(out), **result}


def told(result: Mapping[str, Any], options: Mapping[str, Any]) -> Outcome:
    """How well hidden pixels are told, the files, and what comes next; nothing from other processes."""
    if not result:
        return Outcome({}, "")
    out, error = Path(result["run"]), result["held_out"]
    weights = out / result["weights"]
    lines = [
        f"hidden pixels are told with an RMSE of {error['rmse']:.0f} (reflectance x10000), "
        f"{error['neighbours']:.0f} by the patches around them",
        f"weights: {weights}",
        f"picture: {out / 'reconstructions.png'}",
        f"next: earthtune finetune RECIPE --backbone {result['backbone']} --weights {weights}",
    ]
    return Outcome(result, "\n".join(lines))
