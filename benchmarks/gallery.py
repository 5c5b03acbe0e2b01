"""One figure of a photograph explained by the four methods: how the pictures in README are made."""

import argparse
from pathlib import Path

import ortcam
from ortcam.explanation import comparison
from ortcam.image import write_png
from ortcam.methods import MASKED_METHODS


def main() -> None:
    """Explain a photograph with every method and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("image")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-t", "--target", action="append", help="class label; may be given several times")
    parser.add_argument("--title")
    options = parser.parse_args()
    explainer = ortcam.load(options.bundle)
    methods = [method.name for method in MASKED_METHODS]
    explanations = [explainer.explain(options.image, method=name, target=options.target) for name in methods]
    write_png(options.output, comparison(explanations, title=options.title))


if __name__ == "__main__":
    main()
