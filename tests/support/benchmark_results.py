"""What a benchmark writes, for the tests of benchmarks."""

import json
import xml.etree.ElementTree as ElementTree


def run(main, tmp_path, *arguments):
    """The result that a benchmark writes, and the words of its picture."""
    out = tmp_path / "folder" / "result.json"
    main([*arguments, "--out", str(out)])
    words = ElementTree.parse(out.with_suffix(".svg")).getroot().itertext()
    return json.loads(out.read_text(encoding="utf-8")), " ".join(words)
