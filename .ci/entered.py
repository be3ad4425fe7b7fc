"""Names the functions of src/bindings that no test entered, by what gcov says of each object, a JSON a line.

A lambda is a function too. A header's function is in many objects, and is entered if it is in one of them.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    folder = Path(sys.argv[1]).resolve() / "src/bindings"
    entered: dict[tuple[str, int, int], int] = {}
    names: dict[tuple[str, int, int], str] = {}
    for line in filter(str.strip, sys.stdin):
        found = json.loads(line)
        for file in found["files"]:
            path = Path(found["current_working_directory"], file["file"]).resolve()
            if path.parent != folder:
                continue
            for function in file["functions"]:
                place = (path.name, function["start_line"], function["start_column"])
                entered[place] = entered.get(place, 0) + function["execution_count"]
                names[place] = function["demangled_name"]
    missed = sorted(place for place, count in entered.items() if not count)
    for place in missed:
        print(f"src/bindings/{place[0]}:{place[1]}: no test enters {names[place]}")
    print(f"{len(entered) - len(missed)} of {len(entered)} functions are entered")
    sys.exit(bool(missed) or not entered)


if __name__ == "__main__":
    main()
