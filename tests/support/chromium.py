"""Headless Chromium, driven by its command line: how pages look, what axe-core finds in them."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image
from prometheus_server import binary

PHONE, DESKTOP = 360, 1100
RESULT = re.compile(r'<pre id="result">(.*?)</pre>', re.DOTALL)
PROBE = """<!doctype html><meta charset="utf-8"><body><pre id="result"></pre><script>
const pages = %(pages)s, axe = %(axe)s, widths = %(widths)s, found = [];
async function look(name, width) {
  const frame = document.createElement("iframe");
  frame.style = `border:0;height:900px;width:${width}px`;
  frame.srcdoc = pages[name];
  const loaded = new Promise(resolve => frame.onload = resolve);
  document.body.append(frame);
  await loaded;
  const root = frame.contentDocument.documentElement;
  frame.contentWindow.eval(axe);
  const result = await frame.contentWindow.axe.run(frame.contentDocument, {iframes: false});
  found.push({
    name, width, scrolled: root.scrollWidth, passes: result.passes.length,
    background: frame.contentWindow.getComputedStyle(frame.contentDocument.body).backgroundColor,
    violations: result.violations.map(one => `${one.id}: ${one.nodes[0].html}`),
    unsure: result.incomplete.map(one => `${one.id}: ${one.nodes[0].html}`),
    plots: [...root.querySelectorAll("svg")].map(each => each.getBoundingClientRect().width),
    cut: [...root.querySelectorAll("svg")].flatMap(svg => {
      const box = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].filter(text => {
        const own = text.getBoundingClientRect();
        return own.left < box.left - 1 || own.right > box.right + 1
          || own.top < box.top - 1 || own.bottom > box.bottom + 1;
      }).map(text => text.textContent);
    }),
  });
  frame.remove();
}
(async () => {
  try {
    for (const name in pages) for (const width of widths) await look(name, width);
    document.getElementById("result").textContent = JSON.stringify(found);
  } catch (error) {
    document.getElementById("result").textContent = JSON.stringify(String(error));
  }
})();
</script>"""


@dataclass(frozen=True)
class Seen:
    """A page in a frame of so many pixels. scrolled: how wide its content is; plots: how wide each
    one is; cut: texts of plots that stick out of them; unsure: what axe leaves to a person.
    """

    name: str
    width: int
    scrolled: int
    passes: int
    background: str
    violations: list[str]
    unsure: list[str]
    plots: list[float]
    cut: list[str]


@dataclass(frozen=True)
class Chromium:
    """A browser with a profile of its own."""

    folder: Path

    def run(self, *arguments: str, is_dark: bool = False) -> tuple[str, str]:
        """What a command prints, and what the browser says of it."""
        command = [
            binary("chromium", "chromium"),
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            "--disable-dev-shm-usage",
            *("--enable-logging=stderr", f"--user-data-dir={self.folder / 'profile'}"),
            *(["--force-dark-mode"] if is_dark else []),
            *arguments,
        ]
        env = {**os.environ, "HOME": str(self.folder)}
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=120, env=env
        )
        return done.stdout, done.stderr

    def screenshot(
        self, url: str, name: str, size: tuple[int, int], *, is_dark: bool = False
    ) -> tuple["Image.Image", list[str]]:
        """How a page looks, and what the console says: what its policy kept it from, for one."""
        path = self.folder / f"{name}.png"
        window = f"--window-size={size[0]},{size[1]}"
        _, said = self.run(window, f"--screenshot={path}", url, is_dark=is_dark)
        with Image.open(path) as image:
            return image.convert("RGB"), [line for line in said.splitlines() if "CONSOLE" in line]

    def looked_at(
        self, pages: Mapping[str, bytes], widths: Sequence[int], *, is_dark: bool = False
    ) -> list[Seen]:
        """Each page at each width, in one run."""
        texts = {name: page.decode() for name, page in pages.items()}
        content = {"pages": texts, "axe": _axe(), "widths": list(widths)}
        probe = self.folder / "probe.html"
        probe.write_text(PROBE % {name: _literal(value) for name, value in content.items()})
        url = probe.as_uri()
        printed, _ = self.run("--virtual-time-budget=60000", "--dump-dom", url, is_dark=is_dark)
        match = RESULT.search(printed)
        assert match is not None, printed[-2000:]
        found = json.loads(unescape(match[1]))
        assert isinstance(found, list), found
        return [Seen(**each) for each in found]


def _axe() -> str:
    spec = find_spec("axe_core_python")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")


def _literal(value: Any) -> str:
    """A JavaScript literal that may stand in a script element."""
    return json.dumps(value).replace("</", "<\\/").replace("<!--", "<\\!--")
