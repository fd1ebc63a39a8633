"""`python -m benchmarks.report`: put what stands in benchmarks/results into the documentation."""

from __future__ import annotations

from benchmarks.report.pages import DOCS, rendered


def main() -> None:
    """Write the files whose figures have changed, and name them."""
    for path, text in rendered().items():
        changed = not path.exists() or path.read_text("utf-8") != text
        if changed:
            path.write_text(text, "utf-8")
        print(f"· {path.relative_to(DOCS.parent)}: {'written' if changed else 'as it was'}")


if __name__ == "__main__":
    main()
