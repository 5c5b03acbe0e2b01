"""Explanation: the result for one image. Maps, scores and what was done; drawn, shown and saved as files."""

import base64
import dataclasses
import operator
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ortcam.errors import OptionError, OrtcamError
from ortcam.images.encoding import encode_jpeg, encode_png
from ortcam.images.preprocessing import Preprocessing
from ortcam.images.rendering import LONGEST_SIDE, Blend, Rendering, draw_map, heatmap, shrunk
from ortcam.results import saved
from ortcam.results.columns import column_of, image_name
from ortcam.results.drawing import draw_sheet
from ortcam.results.screen import show
from ortcam.support.suggestions import plain
from ortcam.support.terminal import as_text
from ortcam.support.words import passes_in_words

__all__ = ["Explanation", "Stats"]

_PREVIEW_SIDE: Final = 960  # pixels of the longer side of the photograph that is saved beside its explanations
_SHOWN: Final = 3  # classes in a representation


@dataclasses.dataclass(frozen=True, repr=False)
class Stats:
    """What was done for an explanation.

    Attributes:
        providers: execution providers of the session that scored, in ONNX Runtime's order.
        precision: what the scorer computed in: "float32", "float16", "int8" or "qnn".
        batch_size: most masked images, or altered features, per run. During the search: the best batch size so far.
        channels: C, the number of channels of the layer.
        live_channels: how many channels are not flat. For methods that mask no image: not zero everywhere.
        scored_channels: how many live channels have a weight from forward passes, or from the features alone where no
            image is masked. The other weights were predicted, or are zero with `completion="none"`.
        passes: masked forward passes.
        runs: runs of the scorer graph, or of the head.
        seconds: wall time of the whole explanation.
        seconds_by_stage: wall time of "decode", "features", "prepare", "scoring" and "map".
        energy_covered: share of the live channels' energy (sum of the positive part) in the scored channels.
        estimated_error: per map, how far a value is likely to be from the exact one at most. 0: all channels were
            scored with all samples. 1: not known yet, because fewer than 8 channels are scored, or the Gaussian process
            has chosen fewer than it began with, or there was no time for an estimate. None: weights were neither scored
            nor predicted.
        standard_error: per map, where channels had fewer samples than the method says: the largest standard error of a
            weight, relative to it or to the mean weight. About 1 after a single sample, which tells nothing. Else None.
        head_passes: passes of the head alone, for methods that mask no image. `cam` makes them once, for the first.
        gradient_passes: backward passes of the head, for gradient methods: one per class.
        simplified: what was simplified to meet a deadline or left out when it was stopped, one sentence each.
        seconds_late: how long after its deadline the explanation was ready; 0 if it met it or had none.
        copies: how many copies of the image were explained (`augment`), the image itself included. The counts of
            passes and runs are those of all copies, the counts of channels those of the image itself.
    """

    providers: tuple[str, ...]
    precision: str
    batch_size: int
    channels: int
    live_channels: int
    scored_channels: int
    passes: int
    runs: int
    seconds: float
    seconds_by_stage: dict[str, float]
    energy_covered: float = 1.0
    estimated_error: tuple[float, ...] | None = None
    standard_error: tuple[float, ...] | None = None
    head_passes: int = 0
    gradient_passes: int = 0
    simplified: tuple[str, ...] = ()
    seconds_late: float = 0.0
    copies: int = 1

    @property
    def passes_in_words(self) -> str:
        """What was run for the map, say "512 forward passes" or "49 passes of the head"."""
        return passes_in_words(self.passes, self.head_passes, self.gradient_passes)

    def __repr__(self) -> str:
        scored = f"{self.scored_channels} of {self.live_channels} channels"
        return f"<Stats {self.passes_in_words}, {scored}, {self.seconds:.2f} s, {self.providers[0]}>"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Saliency maps of one image, one per target class. A notebook shows it as a sheet.

    Attributes:
        method: name of the method.
        title: its name in print.
        options: all its options, with defaults.
        targets: K class indices; (-1,) where an expression is explained (`score`).
        labels: their K names; the text of the expression.
        probabilities: float32 [K], of the clean image; the value of an expression, or of outputs that are values.
        maps: float32 [K,H,W] in [0,1] at model input size: ReLU, then min-max.
        raw_maps: float32, the sum before ReLU: [K,h,w] at feature resolution, [K,H,W] where gated maps are summed. For
            Recipro-CAM: the scores of the positions. With `augment`: the combined map [K,H,W].
        weights: float32 [K,C], alpha. Zero for flat channels, and for all of Recipro-CAM, which weighs no channels. For
            Eigen-CAM: the singular vector, the same for all classes. With `augment`: those of the image itself.
        scored: bool [C], true where the weight comes from a forward pass, or from the features alone where no image is
            masked. Elsewhere the weight was predicted, or is zero.
        flat: bool [K], true where the map was flat after ReLU; it is then zero. This happens, too, to a class so
            improbable that its probabilities underflow in float32 (below 1e-45); `weighting="logit-softmax"` helps.
        image: uint8 [H0,W0,3], the upright RGB photograph.
        preprocessing: how the photograph became the model's input.
        stats: what was done.
        provenance: source of the image, bundle, model, cut and versions, for the manifest.
        chosen: where the method was "auto": the method taken and why, in one line; else None.
        score: what was explained in place of the method's own score of a class, as `ortcam.Score` has it; else None.
        are_probabilities: whether `probabilities` are in [0,1] and mean that, to be printed as percentages.
    """

    method: str
    title: str
    options: dict[str, object]
    targets: tuple[int, ...]
    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    maps: NDArray[np.float32]
    raw_maps: NDArray[np.float32]
    weights: NDArray[np.float32]
    scored: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    image: NDArray[np.uint8]
    preprocessing: Preprocessing
    stats: Stats
    provenance: dict[str, Any]
    chosen: str | None = None
    score: str | None = None
    are_probabilities: bool = True

    def __repr__(self) -> str:
        values = [f"{p:.1%}" if self.are_probabilities else f"{p:.4g}" for p in self.probabilities]
        shown = [f"{label!r} {value}" for label, value in zip(self.labels[:_SHOWN], values, strict=False)]
        more = f", {len(self.labels) - _SHOWN} more" if len(self.labels) > _SHOWN else ""
        return f"<Explanation {self.method} of {', '.join(shown)}{more}; {self.stats.passes_in_words}>"

    def _repr_html_(self) -> str:
        """The sheet, for notebooks."""
        import html  # noqa: PLC0415 - notebooks alone need it

        encoded = base64.b64encode(self._repr_png_()).decode()
        words = html.escape(f"{self.title}: {', '.join(self.labels[:_SHOWN])}")
        return f'<img src="data:image/png;base64,{encoded}" alt="{words}" style="max-width:100%;height:auto">'

    def _repr_png_(self) -> bytes:
        """The sheet, for notebooks."""
        return encode_png(self.sheet())

    def sheet(
        self,
        *,
        title: str | None = None,
        colormap: str = "turbo",
        blend: Blend = "rising",
        alpha: float | None = None,
    ) -> NDArray[np.uint8]:
        """One sheet: the photograph, and a row per class with its label, its probability and its overlay.

        `ortcam.sheet` draws several explanations side by side.

        Args:
            title: first line; None is the name of the image's file, "" is none.
            colormap: "turbo", "viridis" or "jet".
            blend: "rising" or "flat", as of `overlay`.
            alpha: opacity where the map is highest, in [0,1]; None is the usual one of `blend`.

        Returns:
            uint8 RGB [h,w,3].

        Raises:
            OptionError: a value that is not accepted.

        Example:
            >>> explanation.sheet(colormap="viridis")  # doctest: +SKIP
        """
        column = column_of(self.summary(), dict(zip(self.targets, self.maps, strict=True)))
        name = image_name(self.provenance["image"]) if title is None else title
        return draw_sheet(self.image, [column], name, Rendering(colormap, blend, alpha))

    def to_pil(self, index: int | str = 0, **rendering: Any) -> Any:
        """The overlay of one class as a `PIL.Image.Image`, say to save it as JPEG or to show it.

        Args:
            index: which of the K targets, by place or label.
            rendering: `colormap`, `blend`, `alpha` and `longest_side`, as of `overlay`.

        Raises:
            OptionError: no such target, or a value that is not accepted.
            OrtcamError: Pillow is not installed.

        Example:
            >>> explanation.to_pil("dog").save("dog.jpg")  # doctest: +SKIP
        """
        try:
            from PIL import Image  # noqa: PLC0415 - the runtime does without Pillow
        except ImportError:
            raise OrtcamError("to_pil() needs Pillow, which is not installed: pip install pillow") from None
        return Image.fromarray(self.overlay(index, **rendering))

    def show(self) -> None:
        """Show the sheet: inline in a notebook, elsewhere in the system's viewer.

        Raises:
            OrtcamError: there is no screen, as on a server.

        Example:
            >>> explanation.show()  # doctest: +SKIP
        """
        show(self)

    def on_photograph(self, index: int | str = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Map `index` laid back on the photograph through crop and resize.

        Args:
            index: which of the K targets, by place or label.

        Returns:
            The map, float32 [H0,W0], and bool [H0,W0], true for the pixels that the model saw.

        Raises:
            OptionError: no such target.
        """
        height, width = self.image.shape[:2]
        return self.preprocessing.geometry(height, width).to_original(self.maps[self._checked(index)])

    def overlay(
        self,
        index: int | str = 0,
        *,
        colormap: str = "turbo",
        blend: Blend = "rising",
        alpha: float | None = None,
        longest_side: int | None = None,
    ) -> NDArray[np.uint8]:
        """The photograph with the map of target `index` drawn over the part that the model saw.

        Args:
            index: which of the K targets, by place or label.
            colormap: "turbo", "viridis" or "jet".
            blend: "rising" draws the map the more opaque the higher it is, leaves the photograph untouched where the
                map is low, dims what the model did not see and frames what it saw. "flat" draws all of the map equally
                opaque and leaves the rest as it is.
            alpha: opacity where the map is highest, in [0,1]; None is 0.65 of "rising" and 0.5 of "flat".
            longest_side: a photograph with a longer side is scaled down to it first, say 1024; None keeps its size.

        Returns:
            uint8 RGB [H0,W0,3], or smaller.

        Raises:
            OptionError: no such target, or a value that is not accepted.

        Example:
            >>> explanation.overlay("dog")  # doctest: +SKIP
            >>> explanation.overlay("dog", colormap="jet", blend="flat")  # as papers print it  # doctest: +SKIP
        """
        image = self.image if longest_side is None else shrunk(self.image, longest_side)
        return self.drawn_on(image, index, Rendering(colormap, blend, alpha))

    def drawn_on(self, image: NDArray[np.uint8], index: int | str, rendering: Rendering) -> NDArray[np.uint8]:
        """The map of target `index`, a place or a label, over a copy of the photograph at any size: uint8 RGB [h,w,3].

        Args:
            image: uint8 RGB [h,w,3], the photograph, scaled.
            index: which of the K targets.
            rendering: how.
        """
        saliency = self.maps[self._checked(index)]
        geometry = self.preprocessing.geometry(*self.image.shape[:2])
        return draw_map(image, saliency, geometry, cells=self.cells, rendering=rendering)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the layer that the maps come from."""
        cut = self.provenance.get("cut", {})
        height, width = self.raw_maps.shape[1:]
        return cut.get("height", height), cut.get("width", width)

    def heatmap(self, index: int | str = 0, *, colormap: str = "turbo") -> NDArray[np.uint8]:
        """Map `index`, a place or a label, in colours at model input size, uint8 RGB [H,W,3]."""
        return heatmap(self.maps[self._checked(index)], colormap=colormap)

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        colormap: str = "turbo",
        blend: Blend = "rising",
        alpha: float | None = None,
        force: bool = False,
    ) -> Path:
        """Write `class-C.npy`, `class-C-heatmap.png` and `class-C-overlay.png` per target, then `manifest.json`.

        Where an expression is explained (`score`), `score` is in the place of `class-C`.

        Heatmaps have the size of the model's input. Overlays have the size of the photograph, but no side of more than
        8192 pixels: a larger photograph is scaled down, and keeps its proportions. `image.jpg` is the photograph at 960
        pixels or less, for sheets and galleries.

        A folder that exists is used, and other files in it stay. Other classes that were saved there from the same
        image with the same settings stay, too, and the manifest lists them all. An explanation of something else is
        not overwritten, unless by `force`. A file is either whole or not there. `manifest.json` is there only when all
        it lists is. Several processes may save to one folder.

        Args:
            folder: it is made where it is not there.
            colormap: "turbo", "viridis" or "jet".
            blend: "rising" or "flat", as of `overlay`.
            alpha: opacity of the overlays where the map is highest, in [0,1]; None is the usual one of `blend`.
            force: replace whatever explanation is there.

        Returns:
            The folder.

        Raises:
            OptionError: a colormap, blend or alpha that is not accepted.
            OutputError: the folder cannot be made or written to, or holds the explanation of another image, or one
                with other settings.
            NotFiniteError: a number in the manifest is infinite or none.

        Example:
            >>> explanation.save("out/cat")  # doctest: +SKIP
        """
        path = Path(folder)
        rendering = Rendering(colormap, blend, alpha)
        contents: dict[str, bytes] = {}
        image = shrunk(self.image, LONGEST_SIDE)
        for index, target in enumerate(self.targets):
            name = saved.stem(target)
            if f"{name}.npy" in contents:
                continue
            contents[f"{name}.npy"] = saved.npy(self.maps[index])
            contents[f"{name}-heatmap.png"] = encode_png(self.heatmap(index, colormap=colormap))
            contents[f"{name}-overlay.png"] = encode_png(self.drawn_on(image, index, rendering))
        contents[saved.PREVIEW] = encode_jpeg(shrunk(self.image, _PREVIEW_SIDE))
        summary = self.summary() | {"rendering": rendering.record()}
        summary["targets"] = list({target["index"]: target for target in summary["targets"]}.values())
        saved.save(path, summary, contents, force=force)
        return path

    def summary(self) -> dict[str, Any]:
        r"""Everything needed to reproduce the explanation, as JSON types; maps and weights left out.

        What is no text in the name of a file is escaped, say "caf\xe9.jpg".
        """
        return as_text(
            {
                "method": self.method,
                "chosen": self.chosen,
                "options": self.options,
                "targets": [
                    {
                        "index": target,
                        "label": label,
                        "probability": float(probability),
                        "flat": bool(flat),
                    }
                    for target, label, probability, flat in zip(
                        self.targets, self.labels, self.probabilities, self.flat, strict=True
                    )
                ],
                "map_size": list(self.maps.shape[1:]),
                "photograph_size": list(self.image.shape[:2]),
                "stats": dataclasses.asdict(self.stats),
                **({} if self.are_probabilities else {"are_probabilities": False}),
                **self.provenance,
            }
        )

    def _checked(self, index: int | str) -> int:
        """The place of a target, given by place or label.

        Raises:
            OptionError: no such target, or several of this label.
        """
        if isinstance(index, str):
            same = [place for place, label in enumerate(self.labels) if plain(label) == plain(index)]
            places = [place for place in same if self.labels[place] == index] or same
            if len({self.targets[place] for place in places}) != 1:
                accepted = ", ".join(map(repr, self.labels))
                raise OptionError(f"map {index!r}: accepted is a place from 0, or one of the labels {accepted}")
            return places[0]
        try:
            place = -1 if isinstance(index, (bool, np.bool_)) else operator.index(index)
        except TypeError:
            place = -1
        if not 0 <= place < len(self.targets):
            raise OptionError(
                f"map {index!r} of {len(self.targets)}: accepted is 0 to {len(self.targets) - 1}, or a label"
            )
        return place
