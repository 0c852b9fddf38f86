"""Commands that cannot do anything say so before they import what takes seconds, counted in modules."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "open_clip", "timm", "cv2", "scipy", "fastapi", "uvicorn", "tensorboard")
MOST_FOR_HELP = 260  # modules, most of them Python's own
TINY = "model/pretrained/ebseg-tiny/1"
VILLAGE = "samples/village.jpg"
HELP = """
import sys, ebseg
ebseg.main(["--help"])
print("modules", len(sys.modules), *({*%r, "numpy", "rich", "pydantic", "httpx", "PIL"} & set(sys.modules)))
"""
# one process for all commands: what one of them imports, all after it have
FAILING = """
import json, sys, ebseg
for words in json.loads(sys.argv[1]):
    code = ebseg.main(words.split())
    print(json.dumps([words, code, sorted(set(%r) & set(sys.modules))]))
"""
COMMANDS = f"""
segment lost.jpg --classes sky
segment {VILLAGE} --classes sky --checkpoint lost
segment {VILLAGE} --classes sky --checkpoint docs
segment {VILLAGE} --classes sky,sky
segment {VILLAGE} --classes sky --dtype x
segment {VILLAGE} --classes sky --device tpu
segment {VILLAGE} --classes sky --device cpu,cpu
segment {VILLAGE} --vocabulary lost
segment {VILLAGE} --classes sky --templates x
segment {VILLAGE} --classes sky --out x.gif
segment {VILLAGE} --classes sky --config lost.toml
segment {VILLAGE} --classes sky --api-key x
serve --checkpoint lost
serve --checkpoint docs
serve --port x
serve --padding few --device cpu
serve --timeout-ms 200s
serve --drain-timeout-s 1parsec
serve --config lost
inspect lost
inspect docs
export lost --official x.pth
export {TINY} --official README.md
import lost --out registry/x/1
import README.md --out nothing
import README.md --out {TINY}
import lost --dry-run
import README.md --out registry/x/1 --training-classes lost
init --variant tiny --out nothing
init --variant tiny --out {TINY}
pull lost.pth
calibrate lost lost
calibrate {TINY} lost
train run --config lost
evaluate {TINY} lost
ablate embeddings {TINY} lost
ablate balance lost lost
publish lost lost
prepare voc lost dst
check lost
encoders --variant tiny --clip lost --sam lost --out registry/x/1
encoders --variant tiny --clip README.md --sam README.md --out {TINY}
bench engine --size 0
bench engine --variant x
bench text --classes 0
""".strip().splitlines()


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def test_help_imports_little() -> None:
    last = run(HELP % (HEAVY,)).stdout.splitlines()[-1].split()
    assert last[0] == "modules"
    assert last[2:] == []
    assert int(last[1]) <= MOST_FOR_HELP


def test_commands_fail_before_they_import_what_takes_seconds() -> None:
    done = run(FAILING % (HEAVY,), json.dumps(COMMANDS))
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [words for words, _, _ in results] == COMMANDS
    assert {words: heavy for words, _, heavy in results if heavy} == {}
    assert {words: code for words, code, _ in results if code not in (1, 2)} == {}
    messages = done.stderr.splitlines()
    assert len(messages) == len(COMMANDS)  # a line each
    assert all(message.startswith("ebseg: error: ") for message in messages)
    assert [message for message in messages if "a fault of ebseg" in message] == []
